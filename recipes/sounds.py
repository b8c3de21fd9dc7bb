"""Makes the samples in assets/audio: mono FLAC, 16 bits, 24 kHz, 2 to 6 seconds each, all of them our own.

python recipes/sounds.py

Speech is spoken by espeak-ng, the sentences are ours; everything else is computed here. The same seeds give the
same samples.
"""

import sys
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import butter, chirp, sosfilt

sys.path.insert(0, str(Path(__file__).parents[1]))

from tokenlab.audio import corpus
from tokenlab.sounds import FOLDER, SAMPLES, resample

RATE = 24_000
PEAK = 0.7  # of every sample

SENTENCES = {  # name: voice, text, and how to speak it
    "speech-english": ("en-us", "Every sound you hear has been cut into tokens and put together again.", {}),
    "speech-english-low": (
        "en-gb-x-rp",
        "Seven grey geese flew slowly over the frozen harbour at dawn.",
        {"pitch": 15, "speed": 150, "variant": "m3"},
    ),
    "speech-german": ("de", "Am Dienstag kaufte Jürgen zwei große Kürbisse und einen Strauß Blumen.", {"pitch": 40}),
    "speech-spanish": ("es", "El niño pequeño corre por la calle y canta una canción alegre.", {"variant": "f2"}),
    "speech-french": ("fr-fr", "Chaque matin, la boulangère chante en ouvrant sa petite boutique.", {"variant": "f4"}),
    "speech-chinese": ("cmn", "今天早上下雨了，可是下午太阳又出来了。", {"variant": "f3"}),
    "speech-hindi": ("hi", "सुबह की चाय के साथ गरम समोसे बहुत अच्छे लगते हैं।", {}),
    "speech-arabic": ("ar", "في الصباح يشرب أبي القهوة ويقرأ الجريدة.", {"pitch": 35}),
    "speech-swahili": ("sw", "Watoto wanacheza mpira karibu na mto kila jioni.", {"variant": "f5", "pitch": 60}),
}


def seconds(duration):
    return np.arange(round(duration * RATE)) / RATE


def note(number):
    """Hertz of a MIDI note."""
    return 440 * 2 ** ((number - 69) / 12)


def chord():
    """C, A minor, F and G of additive tones: ten harmonics each, the higher ones softer and sooner gone."""
    wave = np.zeros(round(4.2 * RATE))
    for i, numbers in enumerate([(48, 64, 67, 72), (45, 60, 64, 69), (41, 60, 65, 69), (43, 59, 62, 67)]):
        t = seconds(1.2)
        for number in numbers:
            for h in range(1, 11):
                envelope = np.minimum(t / 0.02, 1) * np.exp(-t * (1.5 + 0.6 * h)) * np.minimum((1.2 - t) / 0.1, 1)
                wave[i * RATE :][: len(t)] += envelope * np.sin(2 * np.pi * h * note(number) * t) / h**1.3
    return wave


def strings():
    """A melody by Karplus and Strong's plucked string: noise in a loop that is averaged on every turn."""
    rng = np.random.default_rng(1)
    wave = np.zeros(round(4.0 * RATE))
    melody = [(0, 57), (0.4, 60), (0.8, 64), (1.2, 69), (1.6, 67), (2.0, 64), (2.4, 60), (2.8, 62), (2.8, 45)]
    for start, number in melody:
        period = round(RATE / note(number))
        tone = np.zeros(round(1.2 * RATE))
        tone[:period] = rng.uniform(-1, 1, period)
        for n in range(period, len(tone)):
            tone[n] = 0.498 * (tone[n - period] + tone[n - period - 1])
        tone *= np.minimum((1.2 - seconds(1.2)) / 0.2, 1)
        wave[round(start * RATE) :][: len(tone)] += tone
    return wave


def drums():
    """Two bars at 120 beats a minute: a bass drum that falls in pitch, a snare of tone and noise, a hi-hat of noise."""
    rng = np.random.default_rng(2)
    wave = np.zeros(round(4.0 * RATE))
    t = seconds(0.22)
    bright = sosfilt(butter(4, 6_000, "highpass", fs=RATE, output="sos"), rng.standard_normal(len(t)))
    kick = np.sin(2 * np.pi * (45 * t + 110 / 30 * (1 - np.exp(-30 * t)))) * np.exp(-12 * t)
    snare = (0.5 * np.sin(2 * np.pi * 190 * t) + 0.5 * rng.standard_normal(len(t))) * np.exp(-20 * t)
    hat = 0.4 * bright * np.exp(-60 * t)
    for step in range(16):
        hits = [hat] + [kick] * (step % 8 in (0, 3, 5)) + [snare] * (step % 4 == 2)
        wave[step * RATE // 4 :][: len(t)] += sum(hits)
    return wave


def bell():
    """Inharmonic partials, the high ones gone first. Ratios: Risset, Introductory Catalogue of Computer Synthesized
    Sounds (1969), no. 430."""
    t = seconds(4.0)
    ratios = [0.56, 0.563, 0.92, 0.923, 1.19, 1.7, 2.0, 2.74, 3.0, 3.76, 4.07]
    return sum(np.exp(-t * (0.6 + 1.1 * r)) * np.sin(2 * np.pi * 520 * r * t) / (1 + 0.4 * r) for r in ratios)


def rising():
    """40 Hz to 11.5 kHz, eight octaves at equal speed."""
    t = seconds(4.0)
    return chirp(t, 40, t[-1], 11_500, "logarithmic", phi=-90)


def tones():
    """Sines of 220, 440, 880, 1,760, 3,520 and 7,040 Hz, half a second each."""
    t = seconds(0.5)
    edges = np.minimum(1, np.minimum(t, t[-1] - t) / 0.02)
    return np.concatenate([edges * np.sin(2 * np.pi * 220 * 2**octave * t) for octave in range(6)])


def noise():
    """Pink: power falls by 3 dB an octave, from 20 Hz."""
    count = 3 * RATE
    hertz = np.fft.rfftfreq(count, 1 / RATE)
    spectrum = np.fft.rfft(np.random.default_rng(3).standard_normal(count))
    return np.fft.irfft(spectrum * (hertz >= 20) / np.sqrt(np.maximum(hertz, 20)), count)


MUSIC = {"chord": chord, "strings": strings, "drums": drums, "bell": bell, "chirp": rising, "tones": tones}
MUSIC |= {"noise": noise}


def speech(voice, text, how):
    spoken = corpus.say(text, voice, **how)
    return resample(spoken.wave, spoken.rate, RATE)


def main():
    FOLDER.mkdir(exist_ok=True)
    waves = {name: speech(*sentence) for name, sentence in SENTENCES.items()} | {n: make() for n, make in MUSIC.items()}
    assert list(waves) == list(SAMPLES)
    total = 0
    for name, wave in waves.items():
        edge = np.minimum(1, np.arange(len(wave)) / (0.005 * RATE))  # 5 ms, so that nothing clicks
        wave = wave * edge * edge[::-1]
        path = FOLDER / f"{name}.flac"
        samples = np.rint(wave / np.abs(wave).max() * PEAK * 32_768).astype(np.int16)
        soundfile.write(path, samples, RATE, subtype="PCM_16")
        total += path.stat().st_size
        print(f"{path.name:26} {len(wave) / RATE:5.2f} s {path.stat().st_size:9,} bytes")
    print(f"{total:,} bytes in all")


if __name__ == "__main__":
    main()
