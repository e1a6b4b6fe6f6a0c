"""The values that vLLM takes where it takes no others (0.23, config/lora.py and config/cache.py)."""

from __future__ import annotations

from typing import Literal

#: Of LoRA adapters: MaxLoRARanks.
Rank = Literal[1, 8, 16, 32, 64, 128, 256, 320, 512]
#: What vLLM takes where nobody says another one.
DEFAULT_RANK = 16

#: Of the cache of keys and values: CacheDType.
CacheType = Literal[
    "auto",
    "float16",
    "bfloat16",
    "fp8",
    "fp8_e4m3",
    "fp8_e5m2",
    "fp8_inc",
    "fp8_ds_mla",
    "turboquant_k8v4",
    "turboquant_4bit_nc",
    "turboquant_k3v4_nc",
    "turboquant_3bit_nc",
    "int8_per_token_head",
    "fp8_per_token_head",
    "nvfp4",
]
