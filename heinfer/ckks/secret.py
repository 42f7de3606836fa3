"""The secret side: the client's secret key and what only its holder can do."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray
from tenseal import sealapi

from heinfer.ckks import secret_file
from heinfer.ckks.parameters import Parameters
from heinfer.ckks.protection import Protection
from heinfer.ckks.seal import Ring, SealObject, from_bytes, galois_element, library_errors, parms_words, to_bytes
from heinfer.errors import ParameterError, RangeError


class SecretSide:
    """A secret key, with encryption, decryption and the making of evaluation keys.

    It shows nothing of the key when printed, and refuses to be copied or pickled: :meth:`save` is the one way out.
    Construct through :meth:`generate` or :meth:`load`.
    """

    def __init__(self, ring: Ring, secret_key: SealObject) -> None:
        self._ring = ring
        self._secret_key = secret_key
        with library_errors("use the secret key"):
            self._generator = sealapi.KeyGenerator(ring.context, secret_key)
            self._encoder = sealapi.CKKSEncoder(ring.context)
            self._encryptor = sealapi.Encryptor(ring.context, secret_key)
            self._decryptor = sealapi.Decryptor(ring.context, secret_key)

    @classmethod
    def generate(cls, parameters: Parameters) -> SecretSide:
        """Make a new uniform ternary secret key; InsecureParametersError below 128 bits."""
        return cls.generate_in(Ring.secure(parameters))

    @classmethod
    def generate_in(cls, ring: Ring) -> SecretSide:
        """Make a new secret key in a ring that is already open."""
        return cls(ring, sealapi.KeyGenerator(ring.context).secret_key())

    @classmethod
    def load(cls, path: Path, protection: Protection = None) -> SecretSide:
        """Read a key that :meth:`save` wrote.

        Raises:
            KeyProtectionError: when the file is not protected as is said, or does not open.
            FormatError: when the file can be read by others, or is no secret key, or a damaged one.
            NewerFormatError: when a newer heinfer wrote it.
            InsecureParametersError: when its parameters are below 128 bits.
            BackendError: when SEAL refuses the key (it takes none that another minor version of SEAL wrote).
        """
        found, key = secret_file.opened(path, protection)
        ring = Ring.secure(found.parameters)
        return cls(ring, from_bytes(sealapi.SecretKey(), ring.context, key))

    def save(self, path: Path, protection: Protection = None) -> None:
        """Write parameters and key to a file of mode 0600, whole or not at all; KeyringError as it comes."""
        secret_file.write(path, self.parameters, to_bytes(self._secret_key), protection)

    @property
    def parameters(self) -> Parameters:
        return self._ring.parameters

    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 that tells this key from others; for its holder only."""
        return sha256(b"heinfer secret key" + to_bytes(self._secret_key)).hexdigest()

    def encrypt(self, slots: NDArray[np.float64], level: int, scale: float) -> bytes:
        """Encrypt one vector.

        Args:
            slots: (slots,) finite values.
            level: of the ciphertext, 0..top_level.
            scale: of the encoding.

        Returns:
            SEAL bytes of a seeded symmetric ciphertext: its uniform half is a 64-byte seed.

        Raises:
            ParameterError: for a wrong shape, a value that is not finite, or a level out of range.
            RangeError: when value * scale can reach half the modulus, which decryption would not notice.
            BackendError: when SEAL refuses.
        """
        parameters = self.parameters
        primes = parameters.primes_at(level)
        values = np.asarray(slots, dtype=np.float64)
        if values.shape != (parameters.slots,) or not np.isfinite(values).all():
            raise ParameterError(f"{parameters.slots} finite slots can be encrypted, not an array {values.shape}")
        largest = float(np.abs(values).max())
        if 2 * largest * scale >= float(np.prod(np.array(primes, dtype=np.float64))):
            raise RangeError(
                f"a slot of {largest:g} at scale 2^{np.log2(scale):.1f} exceeds the modulus at level {level}"
            )
        plaintext = sealapi.Plaintext()
        with library_errors("encrypt"):
            # A list: the bindings convert an array element by element, three times slower.
            self._encoder.encode(values.tolist(), parms_words(parameters, primes), scale, plaintext)
            return to_bytes(self._encryptor.encrypt_symmetric(plaintext))

    def decrypt(self, data: bytes) -> NDArray[np.complex128]:
        """Decrypt SEAL bytes that our own writer made from checked words.

        Returns:
            (slots,) complex128; of real slots the imaginary parts are error.

        Raises:
            BackendError: when SEAL refuses them.
        """
        ciphertext = from_bytes(sealapi.Ciphertext(), self._ring.context, data)
        plaintext = sealapi.Plaintext()
        with library_errors("decrypt"):
            self._decryptor.decrypt(ciphertext, plaintext)
            return np.array(self._encoder.decode_complex(plaintext), dtype=np.complex128)

    def galois_key(self, step: int) -> bytes:
        """SEAL bytes of the seeded key for a rotation by `step` slots to the left; ParameterError if out of range."""
        if not 0 < step < self.parameters.slots:
            raise ParameterError(f"a rotation step is in 1..{self.parameters.slots - 1}, not {step}")
        with library_errors("make a Galois key"):
            return to_bytes(self._generator.create_galois_keys([galois_element(self.parameters, step)]))

    def relinearization_key(self) -> bytes:
        """SEAL bytes of the seeded relinearization key."""
        with library_errors("make a relinearization key"):
            return to_bytes(self._generator.create_relin_keys())

    def __repr__(self) -> str:
        return f"<SecretSide N={self.parameters.ring_degree}>"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a secret key is never copied or pickled: use SecretSide.save")
