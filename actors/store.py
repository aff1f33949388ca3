"""When the store of a job's input or output is away."""


class StoreError(RuntimeError):
    """It did not answer, however often it was asked: the next split would fail alike."""
