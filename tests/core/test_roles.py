"""Which role serves which stage and needs which weights."""

import pytest

from epidote_core.roles import Role, Stage


@pytest.mark.parametrize("stage", Stage)
def test_all_serves_every_stage_and_each_other_role_its_own(stage: Stage) -> None:
    serving = {role for role in Role if role.serves(stage)}
    assert serving == {Role.ALL, Role(stage.value)}


def test_an_encode_worker_needs_no_language_model_and_a_decode_worker_no_encoder() -> None:
    assert not Role.ENCODE.needs_language_weights
    assert not Role.DECODE.needs_encoder_weights
    assert not Role.PREFILL.needs_encoder_weights
    assert Role.ALL.needs_encoder_weights
    assert Role.ALL.needs_language_weights
