"""The evaluation side: everything a server needs of CKKS, and no way to a secret key."""

from __future__ import annotations

from tenseal import sealapi

from heinfer.ckks.parameters import Parameters
from heinfer.ckks.seal import Ring, SealObject, from_bytes, galois_element, to_bytes
from heinfer.errors import MissingKeyError


class EvaluationSide:
    """SEAL's evaluator and encoder, with one client's evaluation keys.

    Attributes:
        ring: parameters and context.
        context, evaluator, encoder: the library's objects.
        galois_keys, relin_keys: the library's objects, None until :meth:`load_keys` (and after it, if absent).
    """

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.context: SealObject = ring.context
        self.evaluator: SealObject = sealapi.Evaluator(ring.context)
        self.encoder: SealObject = sealapi.CKKSEncoder(ring.context)
        self.galois_keys: SealObject = None
        self.relin_keys: SealObject = None

    @classmethod
    def create(cls, parameters: Parameters) -> EvaluationSide:
        """Open a 128-bit secure ring; InsecureParametersError otherwise."""
        return cls(Ring.secure(parameters))

    @property
    def parameters(self) -> Parameters:
        return self.ring.parameters

    def load_keys(self, galois: bytes | None, relinearization: bytes | None) -> None:
        """Replace the evaluation keys by those in SEAL bytes that our own writer made; all or nothing.

        Raises:
            BackendError: when SEAL refuses them; the former keys stay.
        """
        galois_keys = None if galois is None else from_bytes(sealapi.GaloisKeys(), self.context, galois)
        relin_keys = None if relinearization is None else from_bytes(sealapi.RelinKeys(), self.context, relinearization)
        self.galois_keys, self.relin_keys = galois_keys, relin_keys

    def has_step(self, step: int) -> bool:
        """Whether there is a key for a rotation by `step` slots to the left, 1 <= step < slots."""
        if self.galois_keys is None or not 0 < step < self.parameters.slots:
            return False
        return bool(self.galois_keys.has_key(galois_element(self.parameters, step)))

    def require_step(self, step: int) -> None:
        """Raise MissingKeyError unless :meth:`has_step`: SEAL would compose the rotation of others in silence."""
        if not self.has_step(step):
            raise MissingKeyError(f"no evaluation key for a rotation by {step}: register the keys the manifest lists")

    def load_ciphertext(self, data: bytes) -> SealObject:
        """Load a ciphertext from SEAL bytes that our own writer made from checked words.

        Raises:
            BackendError: when SEAL refuses them.
        """
        return from_bytes(sealapi.Ciphertext(), self.context, data)

    def save_ciphertext(self, ciphertext: SealObject) -> bytes:
        """SEAL bytes of a ciphertext, as SEAL compresses them; heinfer.formats.seal_bytes reads them."""
        return to_bytes(ciphertext)
