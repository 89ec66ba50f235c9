// Run an exported model by TensorFlow.js: node check_tfjs.cjs MODEL PATCHES PROBABILITIES [SECONDS]
// The counterpart of runtimes.py, with the same files and the same answer.
"use strict";
const fs = require("fs");
const path = require("path");

const BATCH = 64, PATCH = 7500;

function load(name) {
  try {
    return require(require.resolve(name, { paths: [process.cwd()] }));
  } catch (error) {
    if (error.code !== "MODULE_NOT_FOUND") throw error;
    console.error(`${name} is not installed`);
    process.exit(3);
  }
}

async function main() {
  const [file, source, target, timed = "1"] = process.argv.slice(2);
  const tf = load("@tensorflow/tfjs");
  load("@tensorflow/tfjs-backend-wasm");
  if (!(await tf.setBackend("wasm"))) throw new Error("TensorFlow.js cannot start its WebAssembly backend");
  const told = JSON.parse(fs.readFileSync(file));
  const shards = told.weightsManifest[0].paths.map((name) => fs.readFileSync(path.join(path.dirname(file), name)));
  const joined = Buffer.concat(shards);
  const model = await tf.loadGraphModel({
    load: async () => ({
      ...told,
      weightSpecs: told.weightsManifest[0].weights,
      weightData: joined.buffer.slice(joined.byteOffset, joined.byteOffset + joined.length),
    }),
  });
  const pixels = fs.readFileSync(source);
  const count = pixels.length / PATCH;
  const pass = async () => {
    const probabilities = [];
    for (let start = 0; start < count; start += BATCH) {
      const part = pixels.subarray(start * PATCH, Math.min(start + BATCH, count) * PATCH);
      const patches = tf.tensor4d(Int32Array.from(part), [part.length / PATCH, 50, 50, 3], "int32");
      const found = model.predict({ patches });
      probabilities.push(...(await found.data()));
      tf.dispose([patches, found]);
    }
    return probabilities;
  };
  fs.writeFileSync(target, Buffer.from(Float32Array.from(await pass()).buffer));
  let done = 0;
  const started = performance.now();
  do {
    await pass();
    done += count;
  } while (performance.now() - started < 1000 * Number(timed));
  const seconds = (performance.now() - started) / 1000;
  console.log(JSON.stringify({ runtime: tf.version.tfjs, images_per_second: done / seconds }));
  process.exit(0); // the backend's threads would wait
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
