"""What may become of a plan that another process makes: functions that such a process can import quickly."""

import os

from heinfer.errors import PlanError


def counted(name, policy, objective):
    return {"rotations": len(name), "key_switches": os.getpid(), "planning_seconds": 0.5, "planning_peak_mb": 100.0}


def none_found(name, policy, objective):
    raise PlanError(f"{name} is too deep")


def dies(name, policy, objective):
    os._exit(1)
