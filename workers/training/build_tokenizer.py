"""Train the demo model's tokenizer: byte-level BPE on the questions themselves.

Every UTF-8 string round-trips, since the alphabet is the 256 bytes; words of the questions are one
token each. The licence text lends some ordinary English.

    python workers/training/build_tokenizer.py
"""

from random import Random

from lessons import SYSTEM_PROMPTS
from recipe import CHAT_TEMPLATE, MODEL_DIR, ROOT, SPECIAL_TOKENS, VOCAB_SIZE
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from epidote_loadgen.pictures import sample_scene
from epidote_loadgen.questions import QuestionType, ask

NUM_QUESTIONS_PER_TYPE = 1500


def corpus() -> list[str]:
    """Questions and answers of every family, the chat frame's words, and the licence."""
    rng = Random("tokenizer")
    lines = [(ROOT / "LICENSE").read_text(encoding="utf-8")]
    for kind in QuestionType:
        for _ in range(NUM_QUESTIONS_PER_TYPE):
            num_scenes = 2 + rng.randrange(2) if kind.needs_several_pictures else 1
            scenes = [sample_scene(rng) for _ in range(num_scenes)]
            question = ask(kind, scenes, rng)
            if question is not None:
                lines += [question.text, question.answer]
    lines += [*SYSTEM_PROMPTS, "user", "assistant", "system", "Picture 1:", "Picture 2:"] * 50
    return lines


def build() -> PreTrainedTokenizerFast:
    """The tokenizer, not yet saved. Equal on every run."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus(), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL_TOKENS),
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def main() -> None:
    tokenizer = build()
    tokenizer.save_pretrained(MODEL_DIR)
    print(f"{len(tokenizer)} tokens, written to {MODEL_DIR.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
