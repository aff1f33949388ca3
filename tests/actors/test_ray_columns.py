"""Images that are tensors, and objects that Ray pickled."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pipemill.actors.ray_columns import (
    encode_tensors,
    is_pickled,
    is_tensor,
    make_missing_null,
    unpickle,
)
from pipemill.pipelines.media.images import decode_image
from ray.data.extensions import (
    ArrowPythonObjectArray,
    ArrowTensorArray,
    ArrowVariableShapedTensorArray,
)


def pictures(shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    numbers = np.random.default_rng(0)
    return [numbers.integers(0, 256, shape, np.uint8) for shape in shapes]


@pytest.mark.parametrize("shape", [(5, 7, 3), (5, 7), (5, 7, 1), (5, 7, 4)])
def test_pixels_stay(shape):
    made = pictures([shape, shape])
    arrays = [ArrowTensorArray.from_numpy(np.stack(made))]
    arrays.append(pa.FixedShapeTensorArray.from_numpy_ndarray(np.stack(made)))
    for array in arrays:
        assert is_tensor(array.type)
        for encoded, pixels in zip(encode_tensors(pa.chunked_array([array])), made, strict=True):
            rgb = np.asarray(decode_image(encoded.as_py()))
            grey = pixels if pixels.ndim == 2 else pixels[:, :, :3]
            assert (rgb == np.broadcast_to(grey.reshape(5, 7, -1), (5, 7, 3))).all()


def test_shapes_may_differ():
    made = pictures([(5, 7, 3), (2, 9, 3)])
    array = ArrowVariableShapedTensorArray.from_numpy(made)
    assert is_tensor(array.type)
    encoded = encode_tensors(pa.chunked_array([array])).to_pylist()
    assert [np.array_equal(decode_image(e), m) for e, m in zip(encoded, made, strict=True)] == [
        True
    ] * 2


def test_other_tensors_fail_when_they_are_read():
    array = ArrowTensorArray.from_numpy(np.zeros((1, 5, 7, 3), np.float32))
    (encoded,) = encode_tensors(pa.chunked_array([array])).to_pylist()
    with pytest.raises(ValueError, match="empty"):
        decode_image(encoded)
    assert not is_tensor(pa.list_(pa.uint8()))


def objects(values: list[object]) -> pa.ChunkedArray:
    return pa.chunked_array([ArrowPythonObjectArray.from_objects(values)])


@pytest.mark.parametrize("value", ["a", b"a", ["a", "b"], {"a": 1}, 2**64 - 1])
def test_values_beside_nan_are_a_column_with_nulls(value):
    column = unpickle(objects([value, float("nan"), None]))
    assert not is_pickled(column.type)
    assert column.to_pylist() == [value, None, None]


def test_pictures_beside_missing_ones_are_image_files():
    picture = pictures([(4, 6, 3)])[0]
    encoded, missing = unpickle(objects([picture, float("nan")])).to_pylist()
    assert np.array_equal(np.asarray(decode_image(encoded)), picture)
    assert missing is None
    assert unpickle(objects([np.arange(3), None])).to_pylist() == [[0, 1, 2], None]


def test_missing_values_of_pandas_become_null():
    column = unpickle(objects(["a", pd.NA, pd.NaT, float("nan")]))
    assert column.to_pylist() == ["a", None, None, None]


class Vague:
    """As tensors and tables are, which compare each of their values."""

    def __ne__(self, other):
        return np.array([True, False])


@pytest.mark.parametrize("values", [["a", 1], [object()], [Vague(), float("nan")]])
def test_values_of_several_or_unknown_types_stay_objects(values):
    assert is_pickled(unpickle(objects(values)).type)


def test_a_column_of_nan_alone_has_no_type():
    nan = float("nan")
    assert make_missing_null(pa.chunked_array([[nan, None]])).type == pa.null()
    assert make_missing_null(pa.chunked_array([[nan, 1.0]])).type == pa.float64()
