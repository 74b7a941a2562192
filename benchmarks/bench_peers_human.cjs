// Runs @vladmandic/human for bench_peers.py, on its WebAssembly backend: nothing but JavaScript to install.
//   node bench_peers_human.cjs NODE_MODULES frames FILE WIDTH HEIGHT   RGB pictures: a line {ms, faces} for each
//   node bench_peers_human.cjs NODE_MODULES crops FILE                 48x48 grey faces: a line with the class of each
const fs = require('fs');
const path = require('path');

const [modules, mode, file, width, height] = process.argv.slice(2);
// Node's fetch does not read files, and both libraries fetch their models.
globalThis.fetch = async (url) => new Response(fs.readFileSync(new URL(String(url.url || url))));
const folder = (name) => `file://${path.join(path.resolve(modules), name)}/`;
const { Human } = require(path.join(path.resolve(modules), '@vladmandic/human/dist/human.node-wasm.js'));
const off = { enabled: false };
const human = new Human({
  backend: 'wasm',
  wasmPath: folder('@tensorflow/tfjs-backend-wasm/dist'),
  modelBasePath: folder('@vladmandic/human/models'),
  async: false,
  cacheSensitivity: 0, // every frame is looked at: no answer is one of a frame before
  filter: off, gesture: off, body: off, hand: off, object: off, segmentation: off,
  face: {
    enabled: true, detector: { rotation: false, maxDetected: 4 }, mesh: off, iris: off, description: off,
    emotion: { enabled: true, minConfidence: 0 },
  },
});
const WARM_UP = 5;

async function frames(data) {
  const size = width * height * 3;
  for (let index = -WARM_UP; (index + 1) * size <= data.length; index += 1) {
    const pixels = data.subarray(Math.max(0, index) * size, (Math.max(0, index) + 1) * size);
    const before = process.cpuUsage();
    const tensor = human.tf.tensor(new Uint8Array(pixels), [1, Number(height), Number(width), 3], 'float32');
    const result = await human.detect(tensor);
    tensor.dispose();
    const used = process.cpuUsage(before);
    if (result.error) throw new Error(result.error);
    if (index >= 0) console.log(JSON.stringify({ ms: (used.user + used.system) / 1000, faces: result.face.length }));
  }
}

// The library wants a whole picture, so its model is run on crops here as its src/gear/emotion.ts does.
async function crops(data) {
  const { tf } = human;
  const model = await tf.loadGraphModel(`${folder('@vladmandic/human/models')}emotion.json`);
  const side = model.inputs[0].shape[2];
  for (let index = 0; (index + 1) * 48 * 48 <= data.length; index += 1) {
    const face = data.subarray(index * 48 * 48, (index + 1) * 48 * 48);
    console.log(tf.tidy(() => {
      const gray = tf.div(tf.tensor(new Uint8Array(face), [1, 48, 48, 1], 'float32'), 255);
      const input = tf.mul(tf.sub(tf.image.resizeBilinear(gray, [side, side]), 0.5), 2);
      return tf.argMax(model.execute(input), -1).dataSync()[0];
    }));
  }
}

(async () => {
  await human.load();
  await (mode === 'frames' ? frames : crops)(fs.readFileSync(file));
})().catch((error) => { console.error(String(error)); process.exit(1); });
