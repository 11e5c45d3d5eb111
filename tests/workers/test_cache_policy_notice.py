"""This file is about what the terminal says when the policy file of a running service changes."""

from pathlib import Path

from epidote_workers.cache_policy_notice import PolicyNotice


def test_each_change_is_told_once_a_bad_one_with_its_field(tmp_path: Path) -> None:
    said: list[str] = []
    file = tmp_path / "policy.yaml"
    file.write_text("epoch: a")
    notice = PolicyNotice(file, said.append)
    notice.look()
    assert said == []
    file.write_text("categories: [{name: faq, ttlSeconds: -1}]")
    notice.look()
    notice.look()
    [refused] = said
    assert refused.startswith("cache policy refused, the one before stays in force")
    assert "policy.categories[0].ttlSeconds" in refused
    file.write_text("epoch: b")
    notice.look()
    file.unlink()
    notice.look()
    notice.look()
    assert said[1:] == [f"cache policy changed: {file}", said[2]]
    assert "can't be read" in said[2]
