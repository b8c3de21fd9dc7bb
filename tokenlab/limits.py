"""All limits, in one table. Everything a user sends is held against these before any work starts."""

from __future__ import annotations

import re

from tokenlab.errors import UserError

TEXT_CHARACTERS = 200_000  # one text box
WORD_CHARACTERS = 20_000  # one run of text without white space: BPE encoders are quadratic in it
STRIP_TOKENS = 20_000  # tokens of all rows together that a token strip carries; the counts go on
FILE_BYTES = 20_000_000  # an uploaded tokenizer or text file
VOCABULARY = 300_000  # entries of an uploaded tokenizer
TRAINING_CHARACTERS = 2_000_000  # text for a tokenizer trained in the page
TRAINED_VOCABULARY = 20_000  # entries of a tokenizer trained in the page
TOKENIZERS = 6  # compared at once
LINK_STATE_BYTES = 2_048  # the `s` part of a shareable link
LINK_JSON_BYTES = 65_536  # what that part may unpack to
UPLOADED_FILES = 64  # tokenizer files kept, least recently used out first
UPLOADED_BYTES = 400_000_000  # and their size together
LOADED_TOKENIZERS = 16  # kept in memory
TRAINED_BYTES = 128_000_000  # texts and tokenizers trained in the page that are kept in memory
PATTERN_CHARACTERS = 10_000  # one regular expression in a tokenizer.json
HUB_SECONDS = 30.0  # one file from the Hub
TIKTOKEN_SECONDS = 20.0  # one encoding of tiktoken; the download goes on in the background
CONNECT_SECONDS = 5.0  # until the Hub answers at all
CHILDREN = 4  # child processes kept alive
CHILD_HEAD_BYTES = 100_000  # one message from a child, its head
CHILD_BODY_BYTES = 100_000_000  # and its body, so that a broken child cannot fill the app's memory
CHILD_SECONDS = 10.0  # one request to the child process that holds an untrusted file
CHILD_MEMORY_BYTES = 3_000_000_000  # address space of that child
LANE = 2  # runs at once
QUEUE = 30  # runs that wait at once, of all visitors
RUN_SECONDS = 60.0  # any run, unless the module sets SECONDS
CACHE_RESULTS = 64  # finished runs kept in memory
CACHE_BYTES = 64_000_000  # and their size as JSON
CONFIG_BYTES = 100_000  # config.json of a checkpoint
HEADER_BYTES = 2_000_000  # the header of a safetensors file, or the index of a sharded checkpoint
SHARDS = 16  # files that the weights of a checkpoint may be split into
WEIGHT_BYTES = 620_000_000  # the weights of a Hub checkpoint
PARAMETERS = 200_000_000  # in memory as float32: 0.8 GB
MODELS = 2  # Hub checkpoints kept in memory
MODEL_SECONDS = 50.0  # waiting for a Hub checkpoint; its download goes on in the background
CONTEXT = 2_048  # tokens in a model's context, whatever more the model could
PATCHES = 1_600  # patches of a picture in an image encoder; DINOv2's 518 pixels make 1,369
VISION_HEADS = 32  # attention heads of an image encoder, each with a map of PATCHES x PATCHES
ATTENTION_TOKENS = 256  # tokens on each axis of an attention map
PICTURE_BYTES = 20_000_000  # an uploaded picture, as a file
PICTURE_PIXELS = 25_000_000  # width x height that its header may claim; a phone's are 12 or 24 million
PICTURE_SIDE = 1_024  # longest side of a picture in use; larger ones are scaled down
UPLOADED_PICTURES = 64  # pictures kept in memory, least recently used out first
UPLOADED_PICTURE_BYTES = 100_000_000  # and their pixels together
SOUND_BYTES = 20_000_000  # an uploaded sound, as a file; what the server takes at most of any file
SOUND_SECONDS = 20.0  # of a sound that is used; the rest is left out, and the page says so
SOUND_SHORTEST = 0.1  # seconds
SOUND_RATES = (4_000, 192_000)  # samples a second
SOUND_CHANNELS = 8
SOUND_MEMORY_BYTES = 1_500_000_000  # address space of the child process that decodes an uploaded sound
SPOKEN_CHARACTERS = 300  # a sentence to be spoken
UPLOADED_SOUNDS = 64  # sounds kept in memory, least recently used out first
UPLOADED_SOUND_BYTES = 100_000_000  # and their samples together
CODEC_WEIGHT_BYTES = 800_000_000  # the weights of a Hub codec: PARAMETERS as float32; X-Codec's have 0.71 GB
CODEC_LEVELS = 64  # codebooks of a codec
CODEC_HOP = 64  # samples that a frame of a codec stands for, at least
CODEC_ACTIVATIONS = 6_500_000  # numbers that one layer holds for a second of sound; DAC's at 44.1 kHz has 4.2 million
CODEC_POSITIONS = 1_600  # positions of attention in SOUND_SECONDS, with VISION_HEADS at most; HuBERT has 1,000
GRAMMAR_CHARACTERS = 20_000  # a grammar, or a JSON schema
GRAMMAR_DEPTH = 50  # parentheses in parentheses, or schemas in schemas
GRAMMAR_REPEATS = 2_000  # {n,m} of a grammar
GRAMMAR_STATES = 5_000  # of its automaton, once repetitions are written out
GRAMMAR_WORK = 1_000_000  # states that are looked at to make it deterministic, of one rule
GRAMMAR_STACKS = 1_000  # ways to read a text that are followed at once
GRAMMAR_NODES = 500_000  # nodes of the tree of stacks

# White space, and the punctuation of scripts that write none.
_BREAK = re.compile("[\\s\u3000-\u303f\uff01-\uff65\u0964\u0965\u1362\u104a\u104b\u17d4]+")


def check_text(text: str, *, name: str = "The text", characters: int = TEXT_CHARACTERS) -> str:
    """`text` itself, or UserError: too long, an endless word, or not encodable as UTF-8."""
    if len(text) > characters:
        raise UserError(f"{name} has {len(text):,} characters; please shorten it to at most {characters:,}.")
    check_unicode(text, name)
    longest = _longest_word(text)
    if longest > WORD_CHARACTERS:
        raise UserError(
            f"{name} has a run of {longest:,} characters without a space; "
            f"please break it into pieces of at most {WORD_CHARACTERS:,}."
        )
    return text


def check_unicode(text: str, name: str = "The text") -> None:
    """UserError when `text` holds a lone surrogate, which no UTF-8 encoder accepts."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise UserError(
            f"{name} holds half a character (the lone surrogate U+{code:04X} at position {error.start}); "
            "please delete it."
        ) from None


def _longest_word(text: str) -> int:
    if len(text) <= WORD_CHARACTERS:
        return 0
    return max(map(len, _BREAK.split(text)), default=0)
