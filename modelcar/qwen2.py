"""What a Hugging Face download of a Qwen2 model consists of, by its dimensions.

Names of files, keys and tensors, for models made here with random weights: `tiny_model` and `made_up`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import pre_tokenizers

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

#: Frequent pairs of English text, so that every id of the tokenizer stands for something.
#: "Ġ" is how byte-level BPE writes a space.
_PAIRS = (
    "Ġ t,Ġ a,h e,i n,r e,o n,Ġt he,e r,Ġ s,a t,Ġ w,Ġ o,e n,Ġ c,i t,i s,a n,o r,e s,Ġ b,e d,Ġ f,in g,Ġ p,o u,"
    "Ġa n,a l,a r,Ġt o,Ġ m,Ġo f,Ġ in,Ġ d,Ġ h,Ġan d,i c,a s,l e,Ġt h,i on,o m,l l,en t,Ġ n,Ġ l,s t,Ġ re,v e,"
    "Ġ e,r o,l y,Ġb e,Ġ g,Ġ T,c t,Ġ S,i d,o t,Ġ I,u t,e t"
)
MERGES = tuple(_PAIRS.split(","))

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


#: Ids of the tokenizer: bytes, merged pairs and special tokens. A model's vocabulary may be larger.
TOKENS = 256 + len(MERGES) + len(SPECIAL_TOKENS)


@dataclass(frozen=True)
class Dimensions:
    """Of a Qwen2ForCausalLM, named as in its config.json.

    window: tokens that the model was made for. deviation: of the random weights (initializer_range).
    """

    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    vocabulary: int
    tied: bool
    window: int
    deviation: float
    dtype: str

    @property
    def head_size(self) -> int:
        """Numbers of one attention head."""
        return self.hidden // self.heads


def small_files(of: Dimensions, words: Sequence[str] = ()) -> dict[str, bytes]:
    """Return the text files of the download, by name.

    words: tokens of a model's own, as `token_of` writes them; they come before the special ones.
    """
    tokens = vocabulary(words)
    first = len(tokens)
    end_of_text, _, end_of_turn = (first + i for i in range(len(SPECIAL_TOKENS)))
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "hidden_act": "silu",
        "hidden_size": of.hidden,
        "initializer_range": of.deviation,
        "intermediate_size": of.intermediate,
        "max_position_embeddings": of.window,
        "max_window_layers": of.layers,
        "model_type": "qwen2",
        "num_attention_heads": of.heads,
        "num_hidden_layers": of.layers,
        "num_key_value_heads": of.key_value_heads,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": of.window,
        "tie_word_embeddings": of.tied,
        "torch_dtype": of.dtype,
        "transformers_version": "4.40.1",
        "use_cache": True,
        "use_mrope": False,
        "use_sliding_window": False,
        "vocab_size": of.vocabulary,
    }
    generation = {
        "bos_token_id": end_of_text,
        "do_sample": False,
        "eos_token_id": [end_of_text, end_of_turn],
        "max_new_tokens": of.window,
        "transformers_version": "4.40.1",
    }
    documents: dict[str, dict[str, Any]] = {
        "config.json": config,
        "generation_config.json": generation,
        "tokenizer.json": _tokenizer(tokens),
        "tokenizer_config.json": _tokenizer_config(of, first),
        "vocab.json": tokens,
    }
    files = {
        name: (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
        for name, document in documents.items()
    }
    files["merges.txt"] = ("#version: 0.2\n" + "\n".join(MERGES) + "\n").encode()
    return files


def vocabulary(words: Sequence[str] = ()) -> dict[str, int]:
    """Return the ids of the 256 bytes, the merged pairs and more words; the special tokens follow them."""
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet()) + [merge.replace(" ", "") for merge in MERGES]
    tokens += words
    return {token: number for number, token in enumerate(tokens)}


def token_of(text: str) -> str:
    """Return printable ASCII as byte-level BPE writes it: a space is "Ġ"."""
    return text.replace(" ", "Ġ")


def _special(content: str) -> dict[str, Any]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {"content": content, **flags}


def _tokenizer(tokens: dict[str, int]) -> dict[str, Any]:
    """Return tokenizer.json. Written out here, not by the library, whose versions write it differently."""
    first = len(tokens)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    # Qwen2's own rule for cutting text into words.
    words = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    split = {"type": "Split", "pattern": {"Regex": words}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": first + i, **_special(name)} for i, name in enumerate(SPECIAL_TOKENS)],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": tokens,
            "merges": list(MERGES),
        },
    }


def _tokenizer_config(of: Dimensions, first: int) -> dict[str, Any]:
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {str(first + i): _special(name) for i, name in enumerate(SPECIAL_TOKENS)},
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|endoftext|>",
        "errors": "replace",
        "model_max_length": of.window,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def shapes(of: Dimensions) -> dict[str, tuple[int, ...]]:
    """Return the tensors of a Qwen2ForCausalLM: biases on q, k and v only; a head where it is not tied."""
    key_value = of.key_value_heads * of.head_size
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (of.vocabulary, of.hidden)}
    for layer in range(of.layers):
        parts: dict[str, tuple[int, ...]] = {
            "input_layernorm.weight": (of.hidden,),
            "mlp.down_proj.weight": (of.hidden, of.intermediate),
            "mlp.gate_proj.weight": (of.intermediate, of.hidden),
            "mlp.up_proj.weight": (of.intermediate, of.hidden),
            "post_attention_layernorm.weight": (of.hidden,),
            "self_attn.k_proj.bias": (key_value,),
            "self_attn.k_proj.weight": (key_value, of.hidden),
            "self_attn.o_proj.weight": (of.hidden, of.hidden),
            "self_attn.q_proj.bias": (of.hidden,),
            "self_attn.q_proj.weight": (of.hidden, of.hidden),
            "self_attn.v_proj.bias": (key_value,),
            "self_attn.v_proj.weight": (key_value, of.hidden),
        }
        found |= {f"model.layers.{layer}.{name}": shape for name, shape in parts.items()}
    found["model.norm.weight"] = (of.hidden,)
    return found if of.tied else found | {"lm_head.weight": (of.vocabulary, of.hidden)}


def unreadable() -> list[int]:
    """Return the ids that print badly, or end an answer at once.

    Models give them no score (zeros in the rows of their head), so that an answer is readable text.
    """
    tokens = [number for token, number in vocabulary().items() if not _readable(token)]
    return [*tokens, *range(TOKENS - len(SPECIAL_TOKENS), TOKENS)]


def _readable(token: str) -> bool:
    return all(character == "Ġ" or "!" <= character <= "~" for character in token)
