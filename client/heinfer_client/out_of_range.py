"""What a client does about answers that are out of range: it says so when all requests of a call have been answered.

Whatever it did towards the server, or earlier, would tell the server something of what was decrypted.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

from heinfer.errors import OutOfRangeError, OutOfRangeWarning, SettingError
from heinfer_client.prediction import Prediction

OnOutOfRange: TypeAlias = Literal["warn", "error"]

_CHOICES = get_args(OnOutOfRange)
_NAMED = 10

# Python's default is to warn once a line. Appended, this gives way to every filter that somebody has set.
warnings.simplefilter("always", OutOfRangeWarning, append=True)


def checked_choice(choice: OnOutOfRange) -> OnOutOfRange:
    """What to do; SettingError when it is nothing that can be done."""
    if choice not in _CHOICES:
        raise SettingError(f"on_out_of_range must be one of {', '.join(map(repr, _CHOICES))}, not {choice!r}")
    return choice


def say_so(predictions: Sequence[Prediction], choice: OnOutOfRange, stacklevel: int) -> None:
    """Warn or raise OutOfRangeError when one of all predictions of a call is out of range.

    Args:
        stacklevel: of the code whose line a warning is about; 1 is this function, 2 its caller.
    """
    numbers = [number for number, prediction in enumerate(predictions, 1) if not prediction.in_range]
    if not numbers:
        return
    which = ""
    if len(predictions) > 1:
        named = ", ".join(map(str, numbers[:_NAMED])) + (", ..." if len(numbers) > _NAMED else "")
        which = f" for {len(numbers)} of {len(predictions)} images ({named})"
    text = (
        f"the answer{which} is beyond what the model's parameters can represent, and the label worth nothing: "
        "leave out what is unlike the images that the model is for, or have it compiled with examples of it"
    )
    if choice == "error":
        raise OutOfRangeError(text)
    warnings.warn(text, OutOfRangeWarning, stacklevel=stacklevel)
