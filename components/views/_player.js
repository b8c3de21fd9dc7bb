// Versions of a sound that play in step, and the arithmetic of a blind test.
// All versions run at once, each through a gain of its own; only the chosen one is let through. Switching moves two
// gains and nothing else, so it has no gap and is aligned to the sample.
(() => {
  const RAMP = 0.005; // s: heard as at once, and too slow to click
  const LEAD = 0.03; // s from asking for a start to the start, time for every source to be ready for it
  const REST = 5000; // ms of silence after which the audio device is let go
  const SHORTEST = 0.05; // s of a loop region
  const RATES = [8000, 96000]; // that every browser can decode to

  const contexts = new Map(); // samples a second -> AudioContext, made at the user's first gesture
  let active = null; // the one player of the page that sounds

  TL.canPlay = () => Boolean(window.AudioContext && window.OfflineAudioContext);

  TL.bytes = (base64) => {
    const text = atob(base64), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return bytes;
  };

  // Samples a second: 20 bits from byte 18 of a FLAC file on (RFC 9639, section 8.2); null for anything else.
  TL.flacRate = (base64) => {
    const head = base64.length < 28 ? new Uint8Array(21) : TL.bytes(base64.slice(0, 28));
    const flac = String.fromCharCode(...head.slice(0, 4)) === "fLaC";
    return flac ? (head[18] << 12) | (head[19] << 4) | (head[20] >> 4) : null;
  };

  // Decoding needs no running AudioContext, thus no gesture. To the player's own rate, because a source whose rate
  // differs from its context's is interpolated crudely while it plays.
  const decode = async (flac, rate) => {
    const sound = await new OfflineAudioContext(1, 1, rate).decodeAudioData(TL.bytes(flac).buffer);
    const samples = sound.getChannelData(0);
    let peak = 0;
    for (const sample of samples) peak = Math.max(peak, Math.abs(sample));
    return { samples, peak };
  };

  const ramp = (parameter, value, at) => {
    const from = parameter.value;
    parameter.cancelScheduledValues(0);
    parameter.setValueAtTime(from, at);
    parameter.linearRampToValueAtTime(value, at + RAMP);
  };

  const contextOf = (rate) => {
    if (!contexts.has(rate)) contexts.set(rate, new AudioContext({ sampleRate: rate }));
    return contexts.get(rate);
  };

  // A session is one uninterrupted run of all voices: it passes second `from` at time `when`, and turns at the ends of
  // `span` if it has one.
  const positionIn = (session, time) => {
    const at = session.from + Math.max(0, time - session.when);
    if (!session.span) return Math.min(at, session.seconds);
    const [start, end] = session.span;
    return at < end ? at : start + ((at - start) % (end - start));
  };

  // player.node: the element it belongs to; once that leaves the page, the sound ends. player.onchange: called after
  // every change. Positions are in seconds.
  TL.player = () => {
    const sounds = new Map(); // FLAC -> {ready, samples, peak, failed, buffer}
    let context = null, session = null, at = 0, wanted = false, snippet = null;
    const player = {
      tracks: [], chosen: 0, seconds: 0, rate: 0, node: null, onchange: () => {}, out: null,
      matched: true, loop: false, region: null, dips: false, snippet: null,
      get playing() { return wanted; },
      get context() { return context; },
    };

    const soundOf = (track) => sounds.get(track.flac);
    const snapped = (seconds) => Math.round(seconds * player.rate) / player.rate;
    const playable = (track) => Boolean(track && soundOf(track) && soundOf(track).samples);
    const factor = (track) => (player.matched ? track.gain : 1);
    const level = (i) => (i === player.chosen ? factor(player.tracks[i]) : 0);
    const heard = () => (session ? positionIn(session, context.currentTime - (context.outputLatency || 0)) : at);

    // All versions are turned down alike when one of them, made as loud as the first, would be clipped.
    const headroom = () => 1 / Math.max(1, ...player.tracks.filter(playable).map((track) => track.gain * soundOf(track).peak));

    // All buffers of a session are equally long: a shorter one would turn earlier and run out of step.
    const bufferOf = (track, length) => {
      const sound = soundOf(track);
      if (!sound.buffer || sound.buffer.length !== length) {
        sound.buffer = new AudioBuffer({ length, sampleRate: player.rate });
        sound.buffer.copyToChannel(sound.samples.subarray(0, length), 0);
      }
      return sound.buffer;
    };

    const rest = () => {
      const resting = context;
      if (resting) setTimeout(() => { if (!active && resting.state === "running") resting.suspend(); }, REST);
    };

    const release = () => {
      if (active !== player || wanted) return;
      active = null;
      rest();
    };

    const stopSnippet = () => {
      if (snippet) snippet.stop();
      snippet = null;
      release();
    };

    const wake = () => {
      if (active && active !== player) active.stop();
      active = player;
      if (!context) {
        context = contextOf(player.rate);
        player.out = new GainNode(context, { gain: headroom() });
        player.out.connect(context.destination);
      }
      context.resume();
    };

    const voice = (track, i, when) => {
      const [loopStart, loopEnd] = session.span || [0, 0];
      const source = new AudioBufferSourceNode(context, { buffer: bufferOf(track, session.length), loop: Boolean(session.span), loopStart, loopEnd });
      const gain = new GainNode(context, { gain: level(i) });
      const mine = session;
      source.onended = () => { if (session === mine && !mine.span && positionIn(mine, context.currentTime) >= mine.seconds - LEAD) finish(); };
      source.connect(gain).connect(session.gate);
      source.start(when, positionIn(session, when));
      return { track, source, gain };
    };

    const hush = (old, when) => {
      ramp(old.gate.gain, 0, when);
      for (const one of old.voices) if (one) one.source.stop(when + RAMP);
    };

    const start = (from) => {
      const old = session, when = snapped(context.currentTime + LEAD);
      const length = Math.max(1, Math.ceil(player.seconds * player.rate)), seconds = length / player.rate;
      const span = player.loop ? (player.region || [0, seconds]).map((end) => Math.min(snapped(end), seconds)) : null;
      // A start in the middle of what plays goes on from where that will then be.
      const begin = snapped(from === null ? positionIn(old, when) : from);
      const late = begin >= (span ? span[1] : seconds) - 1 / player.rate;
      session = { when, length, seconds, span, from: late ? (span ? span[0] : 0) : begin, gate: new GainNode(context, { gain: 0 }), voices: [] };
      session.gate.connect(player.out);
      session.gate.gain.setValueAtTime(0, when);
      session.gate.gain.linearRampToValueAtTime(1, when + RAMP);
      player.out.gain.value = headroom();
      session.voices = player.tracks.map((track, i) => (playable(track) ? voice(track, i, when) : null));
      if (old) hush(old, when);
    };

    const leave = new MutationObserver(() => { if (!player.node.isConnected) player.pause(); });

    const halt = () => {
      if (session) hush(session, context.currentTime);
      session = null;
      wanted = false;
      leave.disconnect();
      release();
    };

    const finish = () => {
      at = session.seconds;
      halt();
      player.onchange();
    };

    // What plays is changed without a break; what is paused is only changed.
    const change = (from = null) => {
      if (session) start(from);
      player.onchange();
    };

    // After the tracks have changed: voices that are still there play on, others end, new ones join in step.
    const join = () => {
      if (!session) return;
      const old = session.voices.filter(Boolean), when = snapped(context.currentTime + LEAD);
      session.voices = player.tracks.map((track, i) => {
        const same = old.findIndex((one) => one.track.name === track.name && one.track.flac === track.flac);
        if (same < 0) return playable(track) ? voice(track, i, when) : null;
        const [kept] = old.splice(same, 1);
        kept.track = track;
        return kept;
      });
      for (const one of old) one.source.stop(when);
      set();
    };

    const set = () => {
      if (!session) return;
      const now = context.currentTime;
      ramp(player.out.gain, headroom(), now);
      session.voices.forEach((one, i) => { if (one) ramp(one.gain.gain, level(i), now); });
    };

    // In a blind test every switch is the same short dip, or else one that changes nothing would give itself away.
    const dip = () => {
      const now = context.currentTime, gate = session.gate.gain;
      ramp(gate, 0, now);
      gate.linearRampToValueAtTime(1, now + 2 * RAMP);
      session.voices.forEach((one, i) => {
        if (!one) return;
        one.gain.gain.cancelScheduledValues(0);
        one.gain.gain.setValueAtTime(level(i), now + RAMP);
      });
    };

    player.position = heard;
    player.samples = (i) => (playable(player.tracks[i]) ? soundOf(player.tracks[i]).samples : null);
    player.peak = (i) => (playable(player.tracks[i]) ? soundOf(player.tracks[i]).peak * factor(player.tracks[i]) : 0);
    player.failed = (i) => !TL.canPlay() || Boolean(soundOf(player.tracks[i]).failed);
    player.gains = () => (session ? session.voices.map((one) => (one ? one.gain.gain.value : null)) : []);

    // Takes in tracks, of which it may have some already. Resolves when all are decoded, or have failed to be.
    player.load = async (tracks, seconds) => {
      Object.assign(player, { tracks, seconds, chosen: Math.max(0, Math.min(player.chosen, tracks.length - 1)) });
      if (player.region) player.region = player.region[0] < seconds - SHORTEST ? [player.region[0], Math.min(player.region[1], seconds)] : null;
      if (!TL.canPlay()) return;
      player.rate = player.rate || Math.max(RATES[0], Math.min(RATES[1], Math.max(0, ...tracks.map((track) => TL.flacRate(track.flac) || 0)) || 48000));
      for (const flac of sounds.keys()) if (!tracks.some((track) => track.flac === flac)) sounds.delete(flac);
      for (const { flac } of tracks) {
        if (sounds.has(flac)) continue;
        const sound = {};
        sound.ready = decode(flac, player.rate).then((decoded) => Object.assign(sound, decoded), () => { sound.failed = true; });
        sounds.set(flac, sound);
      }
      join();
      await Promise.all(tracks.map((track) => soundOf(track).ready));
      if (player.tracks === tracks) join();
    };

    // Must be called from a gesture of the user. It sounds as soon as everything is decoded.
    player.play = async () => {
      if (wanted || !player.tracks.length) return;
      stopSnippet();
      wanted = true;
      wake();
      leave.observe(document, { childList: true, subtree: true });
      player.onchange();
      await Promise.all(player.tracks.map((track) => soundOf(track).ready));
      if (!wanted || session) return;
      start(at);
      player.onchange();
    };

    player.pause = () => {
      if (!wanted) return;
      at = heard();
      halt();
      player.onchange();
    };

    player.stop = () => { stopSnippet(); player.pause(); };

    player.seek = (seconds) => {
      at = Math.max(0, Math.min(player.seconds, seconds));
      if (session && !player.loop && at === player.seconds) finish();
      else change(at);
    };

    player.choose = (i) => {
      player.chosen = i;
      if (session && player.dips) dip();
      else set();
      player.onchange();
    };

    player.match = (on) => { player.matched = on; set(); player.onchange(); };
    player.setLoop = (on) => { player.loop = on; change(); };
    player.clearRegion = () => { player.region = null; change(); };

    // Chooses a region and loops it; ends that are too close together are no region.
    const enclose = (start, end) => {
      const ends = [Math.min(start, end), Math.max(start, end)].map((x) => Math.max(0, Math.min(player.seconds, x)));
      if (ends[1] - ends[0] >= SHORTEST) Object.assign(player, { region: ends, loop: true });
    };
    player.setRegion = (start, end) => {
      enclose(start, end);
      const here = heard(), outside = player.region && (here < player.region[0] || here >= player.region[1]);
      if (outside) player.seek(player.region[0]);
      else change();
    };
    player.startHere = () => {
      const here = heard(), end = player.region ? player.region[1] : player.seconds;
      enclose(here, end - here < SHORTEST ? player.seconds : end);
      change();
    };
    player.endHere = () => {
      const here = heard(), start = player.region ? player.region[0] : 0;
      enclose(here - start < SHORTEST ? 0 : start, here);
      change();
    };

    // Plays seconds start to end of the chosen track, alone. From a gesture of the user, as player.play.
    player.hear = (start, end) => {
      const track = player.tracks[player.chosen];
      if (!playable(track)) return;
      player.stop();
      wake();
      const [from, to] = [Math.max(0, start), Math.min(player.seconds, end)], when = context.currentTime + LEAD;
      const source = new AudioBufferSourceNode(context, { buffer: bufferOf(track, Math.max(1, Math.ceil(player.seconds * player.rate))) });
      const gate = new GainNode(context, { gain: 0 });
      gate.gain.setValueAtTime(0, when);
      gate.gain.linearRampToValueAtTime(factor(track), when + RAMP);
      gate.gain.setValueAtTime(factor(track), when + to - from - RAMP);
      gate.gain.linearRampToValueAtTime(0, when + to - from);
      player.out.gain.value = headroom();
      source.connect(gate).connect(player.out);
      source.onended = () => {
        if (snippet !== source) return;
        snippet = null;
        release();
      };
      source.start(when, from, to - from);
      snippet = source;
      player.snippet = { track: track.name, from, to };
    };

    // Another sound: nothing of the one before is left but the switches.
    player.reset = () => {
      player.stop();
      if (player.out) player.out.disconnect();
      context = null;
      sounds.clear();
      at = 0;
      Object.assign(player, { tracks: [], chosen: 0, rate: 0, region: null, out: null, snippet: null, dips: false });
    };

    return player;
  };

  // ---- a blind test: is X the same as A or as B?

  TL.coin = () => crypto.getRandomValues(new Uint8Array(1))[0] & 1;

  // keys[trial]: 0 where X is A, 1 where it is B; answers alike.
  TL.blindTest = (a, b, trials, coin) => ({ a, b, trials, keys: Array.from({ length: trials }, coin), answers: [] });

  TL.right = (test) => test.answers.filter((answer, i) => answer === test.keys[i]).length;

  // P(K >= k) for K of n fair coins. Exact for n up to 50: all whole numbers stay below 2 ** 53.
  TL.tail = (k, n) => {
    let ways = 1, sum = 0;
    for (let i = 0; i <= n; i++) {
      if (i >= k) sum += ways;
      ways = (ways * (n - i)) / (i + 1);
    }
    return sum / 2 ** n;
  };
})();
