// A microphone in one button: press, speak, press again. No view of a Result, but a part of the control for sounds.
// The samples come as the microphone gives them, not as the lossy WebM of a MediaRecorder, and go as a 16-bit WAV the
// way of any upload, through the file input of the control's upload button.
(() => {
  // Runs in the browser's audio thread and hands over every block of the first channel.
  const WORKLET = `registerProcessor("tl-recorder", class extends AudioWorkletProcessor {
    process(inputs) { if (inputs[0][0]) this.port.postMessage(inputs[0][0].slice()); return true; }
  });`;

  // Blocks of samples in [-1, 1] as a WAV file (mono, 16 bits).
  const wav = (blocks, rate) => {
    const count = blocks.reduce((sum, block) => sum + block.length, 0);
    const view = new DataView(new ArrayBuffer(44 + 2 * count));
    const text = (at, word) => [...word].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
    text(0, "RIFF"); view.setUint32(4, 36 + 2 * count, true); text(8, "WAVEfmt "); view.setUint32(16, 16, true);
    view.setUint16(20, 1, true); view.setUint16(22, 1, true); view.setUint32(24, rate, true);
    view.setUint32(28, 2 * rate, true); view.setUint16(32, 2, true); view.setUint16(34, 16, true);
    text(36, "data"); view.setUint32(40, 2 * count, true);
    let at = 44;
    for (const block of blocks) {
      for (const x of block) {
        view.setInt16(at, Math.max(-32768, Math.min(32767, Math.round(32768 * x))), true);
        at += 2;
      }
    }
    return new File([view], "recording.wav", { type: "audio/wav" });
  };

  const REASONS = {
    NotAllowedError: "The browser does not allow this page to use the microphone; please allow it and press Record again.",
    NotFoundError: "There is no microphone; please connect one and press Record again.",
    NotReadableError: "The microphone is in use elsewhere; please free it and press Record again.",
  };

  // Starts to record. Gives stop(), which ends it and gives {blocks, rate}.
  const open = async (ended) => {
    if (!navigator.mediaDevices) throw new Error("Browsers give the microphone only to pages on https or localhost; please upload a sound.");
    const context = new AudioContext(), blocks = []; // here, while the press of the button counts: Safari wants it
    let tracks = [];
    const stop = () => {
      tracks.forEach((track) => track.stop());
      context.close();
      return { blocks, rate: context.sampleRate };
    };
    try {
      // What makes speech clearer in a call would be heard as a fault of the codec.
      const stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false } });
      tracks = stream.getTracks();
      const address = URL.createObjectURL(new Blob([WORKLET], { type: "text/javascript" }));
      await context.audioWorklet.addModule(address);
      URL.revokeObjectURL(address);
      const node = new AudioWorkletNode(context, "tl-recorder");
      node.port.onmessage = (event) => blocks.push(event.data);
      context.createMediaStreamSource(stream).connect(node).connect(context.destination); // it gives out silence
      tracks[0].onended = ended; // the microphone was unplugged
    } catch (error) {
      stop();
      throw error;
    }
    return stop;
  };

  // value: {upload: id of the upload button, seconds: the longest recording}
  TL.views.recorder = (root, value) => {
    let stop = null, clock = null;
    const said = TL.h("span", { class: "tl-recorder-said", role: "status" });
    const finish = () => {
      if (!stop) return;
      clearInterval(clock);
      const { blocks, rate } = stop();
      stop = null;
      button.textContent = "Record";
      button.classList.remove("on");
      said.textContent = "";
      if (!root.isConnected || !blocks.length) return;
      const files = new DataTransfer();
      files.items.add(wav(blocks, rate));
      const input = document.getElementById(value.upload).parentElement.querySelector("input[type=file]");
      input.files = files.files;
      input.dispatchEvent(new Event("change", { bubbles: true }));
    };
    const begin = async () => {
      said.textContent = "";
      button.disabled = true;
      try {
        stop = await open(finish);
      } catch (error) {
        said.textContent = REASONS[error.name] || (error.name === "Error" ? error.message : "The microphone cannot be used here; please upload a sound.");
        return;
      } finally {
        button.disabled = false;
      }
      const started = performance.now();
      button.classList.add("on");
      const tick = () => {
        const seconds = (performance.now() - started) / 1000;
        button.textContent = `Stop (${Math.floor(seconds)} s)`;
        if (seconds >= value.seconds || !root.isConnected) finish(); // the panel may have gone
      };
      tick();
      clock = setInterval(tick, 200);
    };
    const button = TL.button("Record", () => (stop ? finish() : begin()), { class: "tl-button tl-recorder" });
    root.append(button, said);
  };
})();
