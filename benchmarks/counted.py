"""What a record says of a plan that is counted and not run."""

from __future__ import annotations

from benchmarks.records import Record
from heinfer.circuit.annotate import annotate
from heinfer.circuit.counts import count_circuit
from heinfer.circuit.ir import Circuit
from heinfer.circuit.levels import key_levels
from heinfer.costs.prediction import predict
from heinfer.costs.tables import cost_table
from heinfer.formats.frames import ciphertexts_length, keys_length
from heinfer.planner.plan import Plan
from heinfer.planner.policies.planning import PolicyCounts


def policy_record(counts: PolicyCounts) -> Record:
    """Counts of a published method, but for the plaintexts of biases; a step of thousands of ciphertexts is sampled."""
    parameters = counts.parameters
    sampled = (f"{step} {some} of {number}" for step, (some, number) in counts.sampled.items())
    return {
        "ring_degree": parameters.ring_degree,
        "log_qp": round(parameters.log_qp, 3),
        "levels": counts.levels,
        "rotations": counts.rotations,
        "rotations_hoisted": 0,
        "key_switches": counts.key_switches,
        "hma": counts.hma,
        "ct_ct_mults": counts.ct_ct_mults,
        "input_ciphertexts": counts.input_ciphertexts,
        "keys": len(counts.key_levels),
        "key_bytes": keys_length(parameters, counts.key_levels),
        "upload_bytes": ciphertexts_length(
            parameters, count=counts.input_ciphertexts, level=counts.levels, seeded=True
        ),
        "download_bytes": ciphertexts_length(parameters, count=counts.output_ciphertexts, level=0, seeded=False),
        "predicted_milliseconds": round(counts.milliseconds, 1),
        "sampled": ", ".join(sampled) or "nothing",
    }


def circuit_record(plan: Plan, circuit: Circuit, scale: float) -> Record:
    """Counts of a whole circuit, and its milliseconds by the shipped table of SEAL, one thread.

    Args:
        scale: of the inputs.
    """
    parameters, counts = plan.parameters, count_circuit(circuit)
    levels = key_levels(circuit, plan.input_level)
    types = annotate(circuit, parameters, plan.input_level, scale)
    output = types[circuit.outputs[0]].level
    milliseconds = predict(circuit, types, cost_table(parameters.ring_degree))
    return {
        "ring_degree": parameters.ring_degree,
        "log_qp": round(parameters.log_qp, 3),
        "levels": plan.input_level,
        "rotations": counts.rotations,
        "rotations_hoisted": 0,  # what runs hoisted: SEAL shares nothing between rotations, whatever the plan marks
        "key_switches": counts.key_switches,
        "hma": counts.hma,
        "ct_ct_mults": counts.ct_ct_mults,
        "plaintexts": counts.plaintexts,
        "input_ciphertexts": circuit.inputs,
        "keys": len(levels),
        "key_bytes": keys_length(parameters, levels),
        "upload_bytes": ciphertexts_length(parameters, count=circuit.inputs, level=plan.input_level, seeded=True),
        "download_bytes": ciphertexts_length(parameters, count=len(circuit.outputs), level=output, seeded=False),
        "predicted_milliseconds": round(sum(milliseconds), 1),
        "sampled": "nothing",
    }
