"""A tiny Qwen2 model for machines that no model hub can be reached from.

It has the layout of a Hugging Face download of Qwen/Qwen2.5-0.5B (names of files, keys and tensors), with
random weights of a fixed seed. Its words mean nothing; that it loads, answers and travels like a real
model is the point.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import pre_tokenizers

from modelcar.errors import refuse

#: Stands in the metadata of the weights: a folder with it is this module's own, and may be replaced.
GENERATOR = "modelcar tiny model"

HIDDEN = 128
INTERMEDIATE = 512
LAYERS = 4
HEADS = 4
KEY_VALUE_HEADS = 2
HEAD_SIZE = HIDDEN // HEADS
VOCABULARY = 320
#: Larger than Qwen2's 0.02: with so few layers an answer would only repeat the prompt's last token.
INITIALIZER_RANGE = 0.1

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

#: Frequent pairs of English text, so that every id of the vocabulary stands for something.
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


def make_tiny_model(destination: Path, *, seed: int = 0) -> Path:
    """Make the model's folder, byte for byte the same on every machine, and return it.

    About 4 MB, float32. The folder appears complete or not at all. One that already holds this very
    model is left as it is.

    Args:
        destination: the folder to make; its parents are made too.
        seed: of the random weights; another seed gives another model of the same shape.

    Raises:
        InputError: `destination` holds something that this function did not make, or `seed` is negative.
    """
    if seed < 0:
        raise refuse("seed", seed, allowed="0 or a positive whole number", fix="choose another seed")
    files = {**_small_files(), "model.safetensors": _weights(seed)}
    if _holds(destination, files):
        return destination
    _refuse_foreign(destination)

    destination.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{destination.name}-", dir=destination.parent))
    try:
        made = staging / "new"
        made.mkdir()
        made.chmod(0o755)  # whatever the umask: other users may read it
        for name, content in files.items():
            (made / name).write_bytes(content)
            (made / name).chmod(0o644)
        if destination.exists():
            destination.rename(staging / "old")  # a folder with files in it cannot be replaced in one step
        try:
            made.rename(destination)
        except OSError:
            if not _holds(destination, files):  # else another process has made the same one meanwhile
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return destination


def _holds(folder: Path, files: dict[str, bytes]) -> bool:
    try:
        return all((folder / name).read_bytes() == content for name, content in files.items())
    except OSError:
        return False


def _refuse_foreign(destination: Path) -> None:
    if not destination.exists() and not destination.is_symlink():
        return
    found = "exists and is not a folder"
    if destination.is_dir():
        if not any(destination.iterdir()):
            return
        try:
            with (destination / "model.safetensors").open("rb") as weights:
                if GENERATOR.encode() in weights.read(4096):
                    return
        except OSError:
            pass
        found = "holds files that this program did not make"
    raise refuse(
        str(destination),
        found,
        allowed="a new or empty folder, or one with a tiny model in it",
        fix="choose another folder, or remove what is there yourself",
    )


def _small_files() -> dict[str, bytes]:
    """Return the text files of the download, by name."""
    end_of_text, _, end_of_turn = (VOCABULARY - len(SPECIAL_TOKENS) + i for i in range(len(SPECIAL_TOKENS)))
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": INITIALIZER_RANGE,
        "intermediate_size": INTERMEDIATE,
        "max_position_embeddings": 2048,
        "max_window_layers": LAYERS,
        "model_type": "qwen2",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KEY_VALUE_HEADS,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 2048,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "transformers_version": "4.40.1",
        "use_cache": True,
        "use_mrope": False,
        "use_sliding_window": False,
        "vocab_size": VOCABULARY,
    }
    generation = {
        "bos_token_id": end_of_text,
        "do_sample": False,
        "eos_token_id": [end_of_text, end_of_turn],
        "max_new_tokens": 2048,
        "transformers_version": "4.40.1",
    }
    vocabulary = _vocabulary()
    documents: dict[str, dict[str, Any]] = {
        "config.json": config,
        "generation_config.json": generation,
        "tokenizer.json": _tokenizer(vocabulary),
        "tokenizer_config.json": _tokenizer_config(),
        "vocab.json": vocabulary,
    }
    files = {
        name: (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
        for name, document in documents.items()
    }
    files["merges.txt"] = ("#version: 0.2\n" + "\n".join(MERGES) + "\n").encode()
    return files


def _vocabulary() -> dict[str, int]:
    """Return the ids of the 256 bytes and of the merged pairs; the special tokens follow them."""
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet()) + [merge.replace(" ", "") for merge in MERGES]
    return {token: number for number, token in enumerate(tokens)}


def _special(content: str) -> dict[str, Any]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {"content": content, **flags}


def _tokenizer(vocabulary: dict[str, int]) -> dict[str, Any]:
    """Return tokenizer.json. Written out here, not by the library, whose versions write it differently."""
    first = len(vocabulary)
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
            "vocab": vocabulary,
            "merges": list(MERGES),
        },
    }


def _tokenizer_config() -> dict[str, Any]:
    first = VOCABULARY - len(SPECIAL_TOKENS)
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
        "model_max_length": 2048,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def _shapes() -> dict[str, tuple[int, ...]]:
    """Return the tensors of a Qwen2ForCausalLM with tied embeddings: biases on q, k and v only."""
    key_value = KEY_VALUE_HEADS * HEAD_SIZE
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(LAYERS):
        parts: dict[str, tuple[int, ...]] = {
            "input_layernorm.weight": (HIDDEN,),
            "mlp.down_proj.weight": (HIDDEN, INTERMEDIATE),
            "mlp.gate_proj.weight": (INTERMEDIATE, HIDDEN),
            "mlp.up_proj.weight": (INTERMEDIATE, HIDDEN),
            "post_attention_layernorm.weight": (HIDDEN,),
            "self_attn.k_proj.bias": (key_value,),
            "self_attn.k_proj.weight": (key_value, HIDDEN),
            "self_attn.o_proj.weight": (HIDDEN, HIDDEN),
            "self_attn.q_proj.bias": (HIDDEN,),
            "self_attn.q_proj.weight": (HIDDEN, HIDDEN),
            "self_attn.v_proj.bias": (key_value,),
            "self_attn.v_proj.weight": (key_value, HIDDEN),
        }
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in parts.items()}
    return shapes | {"model.norm.weight": (HIDDEN,)}


def _weights(seed: int) -> bytes:
    """Return model.safetensors."""
    raw = np.random.PCG64(seed)
    tensors = {}
    for name, shape in _shapes().items():
        norm = name.endswith("norm.weight")
        tensors[name] = np.ones(shape, np.float32) if norm else _normal(raw, shape)
    # Tokens that print badly, or end the answer at once, get no score: an answer is then readable text.
    table = tensors["model.embed_tokens.weight"]
    table[[number for token, number in _vocabulary().items() if not _readable(token)]] = 0
    table[-len(SPECIAL_TOKENS) :] = 0
    return _safetensors(tensors, {"format": "pt", "generator": f"{GENERATOR}, seed {seed}"})


def _safetensors(tensors: dict[str, NDArray[np.float32]], metadata: dict[str, str]) -> bytes:
    """Return a safetensors file. Written out here: the library puts metadata in another order each time."""
    header: dict[str, Any] = {"__metadata__": metadata}
    data = []
    end = 0
    for name, tensor in sorted(tensors.items()):
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
        data.append(tensor.astype("<f4").tobytes())
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the data begins where numbers may begin
    return b"".join([len(text).to_bytes(8, "little"), text, *data])


def _readable(token: str) -> bool:
    return all(character == "Ġ" or "!" <= character <= "~" for character in token)


def _normal(raw: np.random.PCG64, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return numbers that are normal for all purposes here, with a deviation of INITIALIZER_RANGE.

    The sum of twelve uniform numbers, added up as integers: numpy's own normal distribution calls the
    machine's math library and may differ in the last bit, while PCG64's raw output is fixed for good.
    """
    count = int(np.prod(shape))
    words = np.asarray(raw.random_raw(3 * count), dtype=np.uint64).reshape(3, count)
    total = np.zeros(count, np.int64)
    for shift in (0, 16, 32, 48):
        total += ((words >> np.uint64(shift)) & np.uint64(0xFFFF)).sum(axis=0).astype(np.int64)
    centred = total - 6 * 0xFFFF
    # Twelve uniform numbers in 0..65535 have a deviation of 65536 in sum (the square root of 12/12).
    return (centred * (INITIALIZER_RANGE / 65536)).astype(np.float32).reshape(shape)
