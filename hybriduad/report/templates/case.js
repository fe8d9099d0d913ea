"use strict";
(() => {
  const data = JSON.parse(document.getElementById("page-data").textContent);
  const at = (id) => document.getElementById(id);
  const OVERLAYS = { score: "Score", mask: "Mask", uncertainty: "Uncertainty" };
  const STEPS = 1000;

  function copyMethods() {
    const selection = window.getSelection();
    selection.selectAllChildren(at("methods"));
    at("copied").textContent = document.execCommand("copy") ? "Copied." : "Press Ctrl+C to copy.";
  }
  at("copy").addEventListener("click", copyMethods);

  /* Volume and components (26 neighbours) of what reaches a threshold, on the grid of this page. */
  /* `least`: voxels of a component that counts, or of all of them together where `perScan`. */
  function components(values, [nx, ny, nz], lowest, least, perScan) {
    const open = new Uint8Array(values.length);
    let voxels = 0;
    for (let i = 0; i < values.length; i++) {
      if (values[i] >= lowest && values[i] > 0) { open[i] = 1; voxels++; }
    }
    const stack = new Int32Array(voxels);
    let count = 0, kept = 0;
    for (let seed = 0; seed < values.length; seed++) {
      if (!open[seed]) continue;
      open[seed] = 0;
      let height = 0, size = 0;
      stack[height++] = seed;
      while (height) {
        const here = stack[--height];
        size++;
        const x = here % nx, y = Math.floor(here / nx) % ny, z = Math.floor(here / (nx * ny));
        for (let k = Math.max(z - 1, 0); k <= Math.min(z + 1, nz - 1); k++)
          for (let j = Math.max(y - 1, 0); j <= Math.min(y + 1, ny - 1); j++)
            for (let i = Math.max(x - 1, 0); i <= Math.min(x + 1, nx - 1); i++) {
              const next = i + nx * (j + ny * k);
              if (open[next]) { open[next] = 0; stack[height++] = next; }
            }
      }
      if (perScan || size >= least) { count++; kept += size; }
    }
    return perScan && voxels < least ? { voxels: 0, count: 0 } : { voxels: kept, count };
  }

  const digits = (value, least) => value.toFixed(value >= 10 ? 1 : value >= 1 ? 2 : least);

  /* The viewer's own code: unpacked, and run only if its digest is the one in the policy of this page. */
  async function loadViewer() {
    const packed = Uint8Array.from(atob(at("niivue").textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    if (!window.niivue) throw new Error("the viewer's code did not run");
  }

  async function start() {
    if (!at("niivue") || !document.createElement("canvas").getContext("webgl2")) return;
    await loadViewer();
    const { Niivue, NVImage, SLICE_TYPE, SHOW_RENDER } = window.niivue;
    at("viewer").hidden = false;
    const canvas = at("view");
    const nv = new Niivue({
      backColor: [0, 0, 0, 1], crosshairColor: [0.31, 0.82, 1, 0.75], crosshairWidth: 0.6, crosshairWidthUnit: "mm", show3Dcrosshair: true,
      dragAndDropEnabled: false, isColorbar: false, textHeight: 0.06, loadingText: "", logLevel: "silent",
      multiplanarShowRender: SHOW_RENDER.NEVER, multiplanarPadPixels: 6,
    });
    await nv.attachToCanvas(canvas);
    nv.addColormap("lesion", { R: [120, 235, 255, 255], G: [10, 80, 180, 250], B: [20, 20, 40, 190], A: [0, 255, 255, 255], I: [0, 1, 140, 255] });
    nv.addColormap("unsure", { R: [68, 59, 33, 94, 253], G: [1, 82, 145, 201, 231], B: [84, 139, 140, 98, 37], A: [0, 90, 170, 230, 255], I: [0, 64, 128, 191, 255] });
    nv.addColormap("outlined", { R: [0, 79], G: [0, 209], B: [0, 255], A: [0, 255], I: [0, 255] });

    const order = ["scan", "reconstruction", "uncertainty", "mask", "score"].filter((name) => data.layers[name]);
    const grey = order.filter((name) => name === "scan" || name === "reconstruction");
    const looks = { scan: "gray", reconstruction: "gray", uncertainty: "unsure", mask: "outlined", score: "lesion" };
    const tops = { scan: 255, reconstruction: 255, uncertainty: 250, mask: 1, score: STEPS };
    const layer = {};
    for (const name of order) {
      layer[name] = await NVImage.loadFromBase64({
        base64: data.layers[name].data, name: name + ".nii.gz", colormap: looks[name], opacity: 0,
        cal_min: name === "score" ? 1 : 0, cal_max: tops[name], trustCalMinMax: false,
      });
    }
    at("no-viewer").hidden = true;
    const score = layer.score, scale = data.layers.score.scale, shape = data.shape;
    const standard = data.threshold ?? data.highest / 2;

    const overlay = at("overlay");
    for (const name of Object.keys(OVERLAYS)) {
      if (layer[name]) overlay.add(new Option(OVERLAYS[name], name));
    }
    overlay.add(new Option("None", ""));
    if (grey.length < 2) at("fade-row").hidden = true;

    let threshold = standard;
    /* Finer steps at low scores, where most thresholds lie. */
    const ofSlider = (place) => data.highest * (place / STEPS) ** 2;
    const toSlider = (value) => Math.round(STEPS * Math.sqrt(Math.min(value / (data.highest || 1), 1)));

    /* Only what is seen is drawn: every volume is another texture. */
    function drawLayers() {
      const shown = overlay.value, fade = Number(at("fade").value) / 100;
      const seen = grey.slice(0, 1).map((name) => [name, 1]);
      if (grey.length > 1 && fade > 0) seen.push(["reconstruction", fade]);
      if (shown) seen.push([shown, Number(at("opacity").value) / 100]);
      if (!seen.length) seen.push(["score", 0]);
      score.cal_min = Math.max(threshold / scale, 0.5);
      score.cal_max = Math.max(STEPS, score.cal_min + 1);
      for (const [name, opacity] of seen) layer[name].opacity = opacity;
      nv.volumes = seen.map(([name]) => layer[name]);
      [nv.back, ...nv.overlays] = nv.volumes;
      nv.updateGLVolume();
    }

    function drawNumbers() {
      const { voxels, count } = components(
        score.img, shape, threshold / scale, data.leastMl / data.voxelMl - 0.001, data.perScan);
      at("cut").textContent = threshold.toPrecision(3);
      at("threshold").setAttribute("aria-valuetext", threshold.toPrecision(3));
      at("volume").textContent = digits(voxels * data.voxelMl, 3);
      at("count").textContent = String(count);
    }

    let waiting = false;
    function redraw() {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; drawNumbers(); drawLayers(); });
    }

    function setThreshold(value) {
      threshold = value;
      redraw();
    }

    const VIEWS = {
      planes: SLICE_TYPE.MULTIPLANAR, axial: SLICE_TYPE.AXIAL, coronal: SLICE_TYPE.CORONAL,
      sagittal: SLICE_TYPE.SAGITTAL, render: SLICE_TYPE.RENDER,
    };
    at("threshold").addEventListener("input", (event) => setThreshold(ofSlider(Number(event.target.value))));
    at("reset").addEventListener("click", () => {
      at("threshold").value = toSlider(standard);
      setThreshold(standard);
    });
    for (const id of ["overlay", "opacity", "fade"]) at(id).addEventListener("input", redraw);
    at("layout").addEventListener("input", (event) => {
      fit();
      nv.setSliceType(VIEWS[event.target.value]);
    });
    at("radiological").addEventListener("input", (event) => nv.setRadiologicalConvention(event.target.checked));
    at("controls").addEventListener("submit", (event) => event.preventDefault());

    const described = ["score", "uncertainty"].filter((name) => layer[name]);
    nv.onLocationChange = (place) => {
      const [i, j, k] = place.vox.map((index, axis) => Math.min(Math.max(Math.round(index), 0), shape[axis] - 1));
      const index = i + shape[0] * (j + shape[1] * k);
      const words = described.map((name) => `${name} ${(layer[name].img[index] * data.layers[name].scale).toFixed(3)}`);
      const spot = [...place.mm].slice(0, 3).map((value) => value.toFixed(1)).join(", ");
      at("where").textContent = [`x, y, z: ${spot} mm`, ...words].join("  ·  ");
    };

    function jump(x, y, z) {
      nv.scene.crosshairPos = nv.mm2frac([x, y, z]);
      nv.drawScene();
      nv.createOnLocationChange();
    }

    const rows = [...document.querySelectorAll("#lesions tbody tr[data-x]")];
    for (const row of rows) {
      row.addEventListener("click", () => {
        rows.forEach((other) => other.classList.toggle("here", other === row));
        jump(Number(row.dataset.x), Number(row.dataset.y), Number(row.dataset.z));
        at("viewer").scrollIntoView({ block: "nearest" });
      });
    }

    const MOVES = {
      ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0], ArrowDown: [0, -1, 0], ArrowUp: [0, 1, 0],
      PageDown: [0, 0, -1], PageUp: [0, 0, 1],
    };
    canvas.addEventListener("keydown", (event) => {
      const move = MOVES[event.key];
      if (!move) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      nv.moveCrosshairInVox(...move);
    }, { capture: true });

    /* As high as the planes need: in a row where there is room, else two and two. */
    function fit() {
      const [x, y, z] = data.extent, wide = at("frame").clientWidth;
      const row = (wide * Math.max(y, z)) / (x + x + y), grid = (wide * (y + z)) / (x + y);
      const planes = at("layout").value === "planes";
      const height = planes ? (wide > 640 ? row : grid) : wide > 640 ? 520 : wide;
      at("frame").style.height = `${Math.round(Math.min(Math.max(height + 8, 260), 640))}px`;
    }
    window.addEventListener("resize", fit);

    fit();
    nv.setSliceType(SLICE_TYPE.MULTIPLANAR);
    at("threshold").value = toSlider(standard);
    drawNumbers();
    drawLayers();
    nv.createOnLocationChange();
    if (rows.length) rows[0].click();
    window.scrollTo(0, 0);
    document.documentElement.dataset.viewer = "ready";
  }

  start().catch((error) => {
    at("viewer").hidden = true;
    at("no-viewer").hidden = false;
    console.error(error);
  });
})();
