"""Whether classes were changed: patches of theirs and of their bases, and nothing else."""

import pytest

from wirespeed._core.guard import Watch


class Base:
    def method(self) -> None: ...


class Derived(Base):
    pass


class Other(Base):
    pass


def watching(*classes: type) -> Watch:
    watch = Watch(*classes)
    watch.remember()
    return watch


def test_nothing_is_taken_for_unchanged_before_it_was_looked_at() -> None:
    assert not Watch(Derived).is_unchanged()


def test_instances_and_lookups_change_nothing() -> None:
    watch = watching(Derived)
    instance = Derived()
    instance.attribute = 1  # type: ignore[attr-defined]
    instance.method()
    assert watch.is_unchanged()
    assert watch.classes == (Derived,)


@pytest.mark.parametrize("changed", [Base, Derived])
def test_patch_of_the_class_or_of_a_base_is_seen(changed: type, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = watching(Derived)
    with monkeypatch.context() as patch:
        patch.setattr(changed, "method", lambda self: None, raising=False)
        assert not watch.is_unchanged()
    # What was put back is a change, too: whoever asks looks again.
    assert not watch.is_unchanged()
    watch.remember()
    assert watch.is_unchanged()


def test_patch_of_a_class_beside_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = watching(Derived)
    monkeypatch.setattr(Other, "method", lambda self: None, raising=False)
    assert watch.is_unchanged()


def test_each_of_several_classes_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = watching(Derived, Other)
    monkeypatch.setattr(Other, "method", lambda self: None, raising=False)
    assert not watch.is_unchanged()


def test_forgotten_classes_are_looked_at() -> None:
    watch = watching(Derived)
    watch.forget()
    assert not watch.is_unchanged()


def test_more_classes_than_it_holds_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 8 classes can be watched, not 9"):
        Watch(*(type(f"C{number}", (), {}) for number in range(9)))
