"""Whose loaded keys stay in a worker: nobody pushes out those of others who have less."""

from collections import Counter, OrderedDict

import httpx
import numpy as np
from asking import infer, registered
from hypothesis import given
from hypothesis import strategies as st
from in_process import URL, running_service
from owner import Owner
from test_server import several
from tiny_model import tiny_bundle

from heinfer_server.admission.tenants import TenantFile
from heinfer_server.evaluation.loaded import with_room
from heinfer_server.memory import total

TENANTS = st.sampled_from("abcd")
MODEL = tiny_bundle()
IMAGE = np.linspace(0, 1, 16).reshape(4, 4)


@given(st.lists(TENANTS, max_size=12), TENANTS, st.integers(1, 12))
def test_who_has_most_gives_its_oldest(owners, tenant, most):
    loaded = {str(number): owner for number, owner in enumerate(owners)}
    stays = with_room(loaded, tenant, most)
    assert len(stays) == min(len(owners), most - 1)
    had, has = Counter(owners), Counter(loaded[key_id] for key_id in stays)
    has[tenant] += 1
    had[tenant] += 1
    for owner in set(owners):
        gone = had[owner] - has[owner]
        if gone:  # then nobody else had, or has, clearly more, but who has nothing besides what comes
            assert all(has[other] <= has[owner] + 1 for other in had if other != tenant or has[tenant] > 1)
        kept = [key_id for key_id, of in loaded.items() if of == owner and key_id in stays]
        assert kept == [key_id for key_id, of in loaded.items() if of == owner][gone:]


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(2, 8))
def test_one_who_rotates_many_sets_pushes_out_its_own(sets, most):
    loaded: OrderedDict[str, str] = OrderedDict(mine="me")
    for number in sets:
        key_id = f"set {number}"
        others = {other: tenant for other, tenant in loaded.items() if other != key_id}
        stays = with_room(others, "rotating", most)
        loaded = OrderedDict((other, tenant) for other, tenant in others.items() if other in stays)
        loaded[key_id] = "rotating"
        assert "mine" in loaded


def test_keys_of_one_who_has_few_stay_loaded_beside_one_who_has_many(tmp_path, monkeypatch):
    monkeypatch.setattr(total, "MOST_LOADED_KEYS", 3)
    tenants = TenantFile(tmp_path / "tenants.json")
    api_keys = [tenants.add(name) for name in ("few", "many")]
    owner = Owner(MODEL)
    with running_service(tmp_path, [MODEL], tenants=tmp_path / "tenants.json") as running:
        few, many = (
            httpx.Client(transport=running.transport, base_url=URL, headers={"Authorization": f"Bearer {key}"})
            for key in api_keys
        )
        worker = running.worker
        mine, *others = [registered(few, owner.keys), *(registered(many, keys) for keys in several(owner, 6))]
        body = owner.inputs(IMAGE)
        assert infer(few, mine, body).status_code == 200
        for key_id in others:
            assert infer(many, key_id, body).status_code == 200
        assert mine in worker.loaded
        assert [key_id in worker.loaded for key_id in others] == [False] * 4 + [True] * 2
