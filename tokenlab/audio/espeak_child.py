"""One question to espeak-ng, in a process of its own: started by corpus.py, imports nothing but Python's own.

    python espeak_child.py LIBRARY DATA_FOLDER SECONDS MEMORY_BYTES < question.json > answer

A fresh process for each question, because the library keeps state that no call of its interface resets (the phase
of its jitter; its noise comes from the C library's rand), so that one sentence spoken twice differs. It also keeps
a crash or an endless loop of the library away from the app. The answer is one line of JSON, then 16-bit samples.
"""

import ctypes
import json
import os
import signal
import sys

SYNCHRONOUS = 2
PHONEME_EVENTS, AS_IPA, DONT_EXIT = 0x0001, 0x0002, 0x8000
POS_CHARACTER = 1
CHARS_UTF8 = 0x0001  # and neither espeakSSML (0x10) nor espeakPHONEMES (0x100): the text is plain text
RATE, VOLUME, PITCH, RANGE, PUNCTUATION, CAPITALS, WORDGAP = 1, 2, 3, 4, 5, 6, 7
WORD, PHONEME = 1, 7


class Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # characters, from 1
        ("length", ctypes.c_int),  # characters
        ("audio_position", ctypes.c_int),  # ms
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("string", ctypes.c_char * 8),  # not ended by a zero when full
    ]


class Voice(ctypes.Structure):
    """espeak_VOICE of speak_lib.h."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),  # bytes: priority, name, 0, priority, name, 0, ..., 0
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("xx1", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    ]


Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))


def open_library(path, data):
    """The initialised library and its sample rate [Hz]."""
    library = ctypes.CDLL(path)
    library.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
    library.espeak_ListVoices.argtypes = [ctypes.c_void_p]
    library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(Voice))
    library.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
    library.espeak_SetParameter.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int]
    library.espeak_SetSynthCallback.argtypes = [Callback]
    library.espeak_SetSynthCallback.restype = None
    library.espeak_Synth.argtypes = [
        ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int,
        ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p,
    ]  # fmt: skip
    rate = library.espeak_Initialize(SYNCHRONOUS, 0, os.fsencode(data), PHONEME_EVENTS | AS_IPA | DONT_EXIT)
    if rate <= 0:
        raise OSError(f"espeak_Initialize gave {rate}")
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # otherwise it is the clock
    return library, rate


def identifiers(library, language=None):
    """(first language, identifier) of each voice file; language b"variant" asks for the variants."""
    wanted = None
    if language is not None:
        text = ctypes.create_string_buffer(language)
        wanted = ctypes.byref(Voice(languages=ctypes.cast(text, ctypes.c_void_p)))
    listed, found = library.espeak_ListVoices(wanted), []
    while listed[len(found)]:
        voice = listed[len(found)].contents
        found.append((ctypes.string_at(voice.languages + 1).decode(), voice.identifier.decode()))
    return found


def speak(library, rate, question):
    """The answer's head and its samples (bytes) for {"text", "voice", "speed", "pitch", "seconds"}.

    voice: an identifier, with "+variant" behind it or not. Sound ends early, and "cut" is true, after `seconds`."""
    library.espeak_SetVoiceByName(question["voice"].encode())
    settings = {RATE: question["speed"], PITCH: question["pitch"]}
    settings |= {VOLUME: 100, RANGE: 50, PUNCTUATION: 0, CAPITALS: 0, WORDGAP: 0}
    for parameter, value in settings.items():
        library.espeak_SetParameter(parameter, value, 0)
    samples, events = bytearray(), []
    most = 2 * rate * question["seconds"]

    def receive(wave, count, event):
        if wave and count > 0:
            samples.extend(ctypes.string_at(wave, 2 * count))
        i = 0
        while event[i].type:
            if event[i].type in (WORD, PHONEME):
                ipa = event[i].string.decode("utf-8", "ignore") if event[i].type == PHONEME else None
                events.append((event[i].sample, event[i].text_position, event[i].length, ipa))
            i += 1
        return len(samples) > most  # true ends the synthesis

    synthesize(library, question["text"], receive)
    return {"rate": rate, "events": events, "cut": len(samples) > most}, bytes(samples)


def speaks(library, identifier):
    """Whether a voice gives any sound: for a few languages the package has a voice but no pronunciation rules."""
    heard = []

    def receive(wave, count, event):
        heard.append(bool(wave) and any(ctypes.string_at(wave, 2 * count)))
        return 0

    library.espeak_SetVoiceByName(identifier.encode())
    synthesize(library, "Hello 12", receive)
    return any(heard)


def synthesize(library, text, receive):
    callback = Callback(receive)
    library.espeak_SetSynthCallback(callback)
    data = text.encode()
    library.espeak_Synth(data, len(data) + 1, 0, POS_CHARACTER, 0, CHARS_UTF8, None, None)


def restrict(seconds, memory):
    """Bound time and memory, and forbid writing files, where the system can (not on Windows)."""
    if sys.platform == "win32":
        return
    import resource

    signal.alarm(seconds)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def main(path, data, seconds, memory):
    restrict(int(seconds), int(memory))
    # The answer leaves by a private copy of standard output, so that nothing the library prints is mixed in.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    question = json.load(sys.stdin.buffer)
    library, rate = open_library(path, data)
    if "text" in question:
        head, samples = speak(library, rate, question)
    else:
        found = [voice for voice in identifiers(library) if speaks(library, voice[1])]
        head, samples = {"voices": found, "variants": identifiers(library, b"variant")}, b""
    answer.write(json.dumps(head).encode() + b"\n" + samples)
    answer.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
