"""The store of decoded uploads: bounded in number and bytes."""

from tokenlab.uploads import Uploads


def test_the_least_recently_used_upload_leaves_first():
    kept = Uploads(most=2, size=100)
    kept.put("a", "first", 10)
    kept.put("b", "second", 10)
    assert kept.get("a") == "first"
    kept.put("c", "third", 10)
    assert [kept.get(ref) for ref in "abc"] == ["first", None, "third"]
    kept.put("d", "large", 95)  # no room beside it
    assert list(kept.entries) == ["d"]
    kept.put("e", "larger than everything", 101)
    assert list(kept.entries) == [] and kept.get("e") is None


def test_a_label_is_the_safe_name_with_the_end_of_the_hash():
    kept = Uploads(most=2, size=100)
    kept.put("upload:0123456789abcdef", "", 0, "C:\\music/a<b>.wav")
    kept.put("upload:0123456789abcde0", "", 0)
    assert kept.label("upload:0123456789abcdef") == "a_b_.wav cdef"
    assert kept.label("upload:0123456789abcde0") is None and kept.label("upload:00") is None
