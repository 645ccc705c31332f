// What transformers.js makes of exported directories: the answers of its pipelines, as JSON.
//
//     .venv-readers/bin/node tests/exporting/readers/read_with_transformers.mjs MODULES JOB.json
//
// MODULES is the folder that has node_modules. The job is `{"folder", "models": [{"name", "task",
// "texts", "dtype", "options"}]}`; models are folders in the folder.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [modules, job] = process.argv.slice(2);
const { env, pipeline } = createRequire(`${modules}/`)("@huggingface/transformers");
const { folder, models } = JSON.parse(readFileSync(job, "utf-8"));
env.allowRemoteModels = false;
env.localModelPath = folder;

const answers = [];
for (const { name, task, texts, dtype, options } of models) {
  const ask = await pipeline(task, name, { dtype });
  const answered = await ask(texts, options);
  answers.push(answered.tolist?.() ?? answered);
  await ask.dispose();
}
process.stdout.write(JSON.stringify(answers));
