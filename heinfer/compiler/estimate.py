"""What a network would cost under a policy: counts of its structure, without data to calibrate it on."""

from __future__ import annotations

from heinfer.circuit.annotate import annotate
from heinfer.circuit.counts import count_circuit
from heinfer.circuit.levels import key_levels
from heinfer.circuit.passes import mark_hoisting, merge_common_subexpressions, remove_dead_code
from heinfer.costs.prediction import predict
from heinfer.lowering.lower import lower
from heinfer.network.ir import Network
from heinfer.planner.objective import Wishes, table_for
from heinfer.planner.policies.planning import PolicyCounts, count_policy, plan_policy

_SCALE = 1.0  # of the inputs: levels do not depend on it


def estimate(network: Network, wishes: Wishes) -> PolicyCounts:
    """Count what a folded network takes: the circuit of a plan that is searched, or the steps of a published method.

    Raises:
        PlanError: when there is no plan.
    """
    if wishes.policy.is_published:
        return count_policy(network, wishes.policy, wishes=wishes)
    plan = plan_policy(network, wishes.policy, wishes=wishes)
    circuit = mark_hoisting(remove_dead_code(merge_common_subexpressions(lower(plan))))
    counts = count_circuit(circuit)
    types = annotate(circuit, plan.parameters, plan.input_level, _SCALE)
    return PolicyCounts(
        policy=wishes.policy,
        parameters=plan.parameters,
        levels=plan.input_level,
        rotations=counts.rotations,
        key_switches=counts.key_switches,
        hma=counts.hma,
        ct_ct_mults=counts.ct_ct_mults,
        key_levels=key_levels(circuit, plan.input_level),
        input_ciphertexts=circuit.inputs,
        output_ciphertexts=len(circuit.outputs),
        milliseconds=sum(predict(circuit, types, table_for(wishes, plan.parameters))),
        sampled={},
    )
