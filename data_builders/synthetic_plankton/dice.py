"""The random numbers of one drawing. Pure: the same seed and index give the same numbers."""

import numpy as np

_SUPPLY = 256
_WORD = (1 << 64) - 1


def generator(seed: int, index: int) -> np.random.Generator:
    """A generator that is a function of `(seed, index)` alone, cheap to make."""
    return np.random.Generator(np.random.Philox(key=(seed & _WORD) | (index & _WORD) << 64))


class Dice:
    """Uniform numbers drawn in one go and handed out one by one.

    Asking NumPy for one number costs more than a microsecond, and a drawing needs a hundred.
    """

    def __init__(self, source: np.random.Generator):
        self._source = source
        self._refill()

    def _refill(self) -> None:
        self._array = self._source.random(_SUPPLY)
        self._values = self._array.tolist()
        self._next = 0

    def between(self, low: float, high: float) -> float:
        """A number uniform in [low, high)."""
        if self._next == _SUPPLY:
            self._refill()
        value = self._values[self._next]
        self._next += 1
        return low + (high - low) * value

    def count(self, low: int, high: int) -> int:
        """An integer uniform in low..high, both included."""
        return int(self.between(low, high + 1))

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.between(0.0, 1.0) < probability

    def bells(self, number: int) -> np.ndarray:
        """`number` numbers of mean 0 and variance 1, bell-shaped, within -3..3; at most 85."""
        return self.many(3 * number, -1, 1).reshape(3, number).sum(axis=0)

    def many(self, number: int, low: float, high: float) -> np.ndarray:
        """`number` numbers uniform in [low, high), at most 256."""
        if self._next + number > _SUPPLY:
            self._refill()
        values = self._array[self._next : self._next + number]
        self._next += number
        return low + (high - low) * values
