import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.nesting import DEEPEST, check_depth

json_values = st.recursive(
    st.none() | st.integers(-(2**60), 2**60) | st.text('[]{}\\"a', max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('[]{}\\"a', max_size=4), inner, max_size=3),
    max_leaves=60,
)


def depth_of(value: object) -> int:
    inner = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else None
    return 0 if inner is None else 1 + max(map(depth_of, inner), default=0)


@given(value=json_values, around=st.integers(DEEPEST - 8, DEEPEST))
def test_exactly_what_is_too_deep_is_refused(value: object, around: int) -> None:
    document = b"[" * around + msgspec.json.encode([value, [[]] * DEEPEST]) + b"]" * around
    if around + 1 + max(depth_of(value), 2) > DEEPEST:
        with pytest.raises(ValueError, match=f"nested more than {DEEPEST} deep"):
            check_depth(document)
    else:
        check_depth(document)


def test_many_side_by_side_are_not_deep() -> None:
    check_depth(msgspec.json.encode([[{}]] * 10_000))
