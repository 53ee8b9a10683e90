// The picture of a case: NiiVue with an image, its mask and a probability. It is fetched when a case is opened first.

export const LAYOUTS = [["all", "All"], ["axial", "Axial"], ["coronal", "Coronal"], ["sagittal", "Sagittal"], ["render", "3D"]];
/** Windows of CT in Hounsfield units: level, width. */
export const WINDOWS = { "soft tissue": [40, 400], "lung": [-600, 1500], "bone": [400, 1800], "brain": [40, 80], "liver": [60, 160] };

const SLICES = { axial: 0, coronal: 1, sagittal: 2, all: 3, render: 4 };
const STEPS = {
  ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0], ArrowUp: [0, 1, 0], ArrowDown: [0, -1, 0], PageUp: [0, 0, 1], PageDown: [0, 0, -1],
};
const CROSS = 8, RULER = 2, CONTRAST = 1, GRID = 2, ALWAYS = 1;
const LABELS = 1002; // NIFTI_INTENT_LABEL
const SLICES_ONLY = "slices only";
const LOWEST_PROBABILITY = 0.1;

/** NiiVue on a canvas. */
export class Viewer {
  /** Return a viewer whose canvas is in `figure`; `onPlace` gets a text about what is under the cross. */
  static async create(figure, onPlace) {
    const canvas = figure.querySelector("canvas");
    if (!document.createElement("canvas").getContext("webgl2")) {
      throw new Error("this browser cannot show images in 3D: allow WebGL 2 in its settings, or take another browser");
    }
    const niivue = await import("./niivue.min.js");
    const viewer = new Viewer();
    viewer.niivue = niivue;
    viewer.shown = new niivue.Niivue({
      backColor: [0, 0, 0, 1], crosshairColor: [1, 1, 0.63, 0.45], crosshairWidth: 0.3, crosshairWidthUnit: "percent", show3Dcrosshair: false,
      fontColor: [1, 1, 0.63, 1], fontMinPx: 12, isRadiologicalConvention: true, dragAndDropEnabled: false, isOrientCube: false,
      dragMode: CONTRAST, dragModePrimary: CROSS, multiplanarShowRender: ALWAYS, multiplanarLayout: GRID, tileMargin: 2,
      loadingText: "", logLevel: "error", viewModeHotKey: "", clipPlaneHotKey: "", cycleClipPlaneHotKey: "",
      rulerColor: [1, 0.9, 0.2, 1], measureLineColor: [1, 0.9, 0.2, 1], measureTextColor: [1, 0.9, 0.2, 1], isAntiAlias: true,
    });
    // NiiVue has keys of its own, which would do other things than those of the page.
    figure.addEventListener("keydown", (event) => viewer.#onKey(event), true);
    figure.addEventListener("keyup", (event) => event.stopPropagation(), true);
    await viewer.shown.attachToCanvas(canvas);
    // In 3D an image would hide the structures inside it; without alpha it is seen in slices only.
    viewer.shown.addColormap(SLICES_ONLY, { R: [0, 255], G: [0, 255], B: [0, 255], A: [0, 0], I: [0, 255] });
    viewer.shown.onLocationChange = (place) => onPlace(viewer.#textOf(place));
    viewer.labels = [];
    viewer.setLayout("all");
    return viewer;
  }

  /** Show an image (File), and a mask (File or null) with labels: value, name, color, isShown. */
  async show(image, mask, labels, opacity) {
    const volumes = [await this.niivue.NVImage.loadFromFile({ file: image, name: "image.nii.gz", colormap: mask ? SLICES_ONLY : "gray" })];
    if (mask) {
      const drawn = await this.niivue.NVImage.loadFromFile({ file: mask, name: "mask.nii.gz", opacity });
      drawn.hdr.intent_code = LABELS; // else voxels without a label would darken the image, and hide what is behind them
      volumes.push(drawn);
    }
    this.clear();
    for (const volume of volumes) this.shown.addVolume(volume);
    [this.image, this.mask] = volumes;
    this.window = [this.image.cal_min, this.image.cal_max];
    this.paint(labels);
  }

  /** Colour the structures, and hide those that are not shown. */
  paint(labels) {
    this.labels = labels;
    if (!this.mask) return;
    const rgb = labels.map(({ color }) => [1, 3, 5].map((begin) => parseInt(color.slice(begin, begin + 2), 16)));
    this.mask.setColormapLabel({
      R: [0, ...rgb.map(([red]) => red)], G: [0, ...rgb.map(([, green]) => green)], B: [0, ...rgb.map(([, , blue]) => blue)],
      A: [0, ...labels.map(({ isShown }) => isShown ? 255 : 0)], I: [0, ...labels.map(({ value }) => value)],
      labels: ["", ...labels.map(({ name }) => name)],
    });
    this.shown.updateGLVolume();
  }

  /** Set how much of the image the mask covers, from 0 to 1. */
  setOpacity(share) {
    if (this.mask) this.shown.setOpacity(this.shown.getVolumeIndexByID(this.mask.id), share);
  }

  /** Show the probability of one label (File, and which frame of it); null shows none. */
  async showProbability(file, frame) {
    if (this.probability) this.shown.removeVolume(this.probability);
    this.probability = null;
    if (!file) return;
    const made = await this.niivue.NVImage.loadFromFile({
      file, name: "probability.nii.gz", colormap: "viridis", opacity: 0.65, frame4D: frame, cal_min: LOWEST_PROBABILITY, cal_max: 1,
    });
    this.shown.addVolume(made);
    this.probability = made;
    this.shown.setFrame4D(made.id, frame);
  }

  /** Show all planes and 3D, or one of them. */
  setLayout(name) {
    this.shown.setSliceType(SLICES[name]);
  }

  /** Set the grey values that are black and white; null for those at first. */
  setWindow(levelAndWidth) {
    if (!this.image) return;
    const [level, width] = levelAndWidth ?? [];
    [this.image.cal_min, this.image.cal_max] = levelAndWidth ? [level - width / 2, level + width / 2] : this.window;
    this.shown.updateGLVolume();
  }

  /** Let dragging measure a distance, or move the cross. */
  setRuler(isOn) {
    this.shown.opts.dragModePrimary = isOn ? RULER : CROSS;
    if (!isOn) this.shown.document.completedMeasurements = [];
    this.shown.drawScene();
  }

  /** Go to the middle, without zoom. */
  reset() {
    this.shown.scene.crosshairPos = [0.5, 0.5, 0.5];
    this.shown.setPan2Dxyzmm([0, 0, 0, 1]);
    this.shown.setRenderAzimuthElevation(160, 12);
    this.shown.setScale(1);
    this.setWindow(null);
    this.shown.createOnLocationChange();
  }

  /** Show nothing. */
  clear() {
    this.image = this.mask = this.probability = null;
    this.shown.document.completedMeasurements = [];
    while (this.shown.volumes.length) this.shown.removeVolume(this.shown.volumes.at(-1));
  }

  #onKey(event) {
    event.stopPropagation();
    const step = STEPS[event.key];
    if (!step || !this.image) return;
    event.preventDefault();
    this.shown.moveCrosshairInVox(...step);
    this.shown.createOnLocationChange();
    this.shown.drawScene();
  }

  #textOf({ mm, values }) {
    const place = [...mm].slice(0, 3).map((each) => each.toFixed(1)).join(", ");
    const [image, mask] = values;
    const label = this.mask && this.labels.find(({ value }) => value === mask?.value);
    return `${place} mm \u00b7 ${Number(image?.value.toPrecision(4))}${label ? ` \u00b7 ${label.name}` : ""}`;
  }
}
