// What run_model.py does beside a converted network, by ONNX Runtime in JavaScript: node run_model.js FOLDER IN SHAPE OUT
"use strict";
const fs = require("fs");
const path = require("path");
const ort = require("onnxruntime-web");

const [folder, input, dimensions, output] = process.argv.slice(2);
const contract = JSON.parse(fs.readFileSync(path.join(folder, "contract.json"), "utf8"));
const [channels, ...shape] = dimensions.split(",").map(Number);
const floats = (file, skip = 0) => {
  const bytes = fs.readFileSync(file).subarray(skip);
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
};
const npy = (file) => floats(file, 10 + fs.readFileSync(file).readUInt16LE(8));

const round = (x) => (x % 1 === 0.5 ? 2 * Math.round(x / 2) : Math.round(x)); // halves to even numbers, as in Python

function starts(size, side) {
  const [last, step] = [size - side, side * (1 - contract.overlap)];
  if (last <= 0) return [-Math.floor(-last / 2)];
  if (contract.steps === "even") {
    const count = Math.ceil(last / step);
    return [...new Set(Array.from({ length: count + 1 }, (_, n) => round((last / count) * n)))];
  }
  const found = [];
  for (let n = 0; n < last; n += Math.max(1, Math.floor(step))) found.push(n);
  return [...found, last];
}

async function main() {
  ort.env.wasm.numThreads = 1;
  const volume = floats(input);
  const weights = npy(path.join(folder, contract.window_weights));
  const model = fs.readFileSync(path.join(folder, contract.networks[0]));
  const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  const [p, q, r] = contract.patch;
  const [I, J, K] = shape;
  const outputs = contract.outputs.length;
  const sums = new Float32Array(outputs * I * J * K);
  const inside = (i, j, k) => i >= 0 && j >= 0 && k >= 0 && i < I && j < J && k < K;
  const visit = (a, b, c, what) => {
    for (let i = 0; i < p; i++)
      for (let j = 0; j < q; j++)
        for (let k = 0; k < r; k++)
          if (inside(a + i, b + j, c + k)) what((i * q + j) * r + k, ((a + i) * J + b + j) * K + c + k);
  };
  for (const a of starts(I, p))
    for (const b of starts(J, q))
      for (const c of starts(K, r)) {
        const patch = new Float32Array(channels * p * q * r);
        visit(a, b, c, (here, there) => {
          for (let n = 0; n < channels; n++) patch[n * p * q * r + here] = volume[n * I * J * K + there];
        });
        const image = new ort.Tensor("float32", patch, [1, channels, p, q, r]);
        const logits = (await session.run({ image })).logits.data;
        visit(a, b, c, (here, there) => {
          for (let n = 0; n < outputs; n++) sums[n * I * J * K + there] += logits[n * p * q * r + here] * weights[here];
        });
      }
  const labels = new Uint8Array(I * J * K);
  for (let voxel = 0; voxel < labels.length; voxel++) {
    let best = 0;
    for (let n = 1; n < outputs; n++) if (sums[n * I * J * K + voxel] > sums[best * I * J * K + voxel]) best = n;
    labels[voxel] = contract.outputs[best].value;
  }
  fs.writeFileSync(output, labels);
}

main();
