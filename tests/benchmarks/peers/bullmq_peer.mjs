// BullMQ on Node: the measurements of tests/benchmarks/contest.py, in the same words.
// Usage: node bullmq_peer.mjs FIGURE --jobs N --port P, with BENCH_NODE naming the folder of node_modules.
import { createRequire } from 'node:module';

const { Queue, Worker } = createRequire(process.env.BENCH_NODE + '/')('bullmq');
const [figure, , jobs, , port] = process.argv.slice(2).map((word, at) => (at ? Number(word) : word));
const AT_ONCE = 100, CALLERS = 50, BULK = 500, SETTLE_MS = 1000;
const connection = { port };
const queue = new Queue('bench', { connection });
await queue.waitUntilReady();

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const nowMs = () => performance.timeOrigin + performance.now();
const perSecond = (count, startedMs) => (count * 1000) / (nowMs() - startedMs);
const many = (count) => queue.addBulk(Array.from({ length: count }, (_, n) => ({ name: 'noop', data: { user_id: n } })));
const fill = async () => { for (let at = 0; at < jobs; at += BULK) await many(Math.min(BULK, jobs - at)); };

function answer(values) {
  process.stdout.write(JSON.stringify(values) + '\n', () => process.exit(0));
}

const measures = {
  async drain() {
    await fill();
    let runs = 0, startedMs;
    const ended = new Promise((resolve) => {
      new Worker('bench', async () => {
        if (runs === 0) startedMs = nowMs();
        if (++runs === jobs) resolve();
      }, { connection, concurrency: AT_ONCE });
    });
    await ended;
    while (await queue.getJobCountByTypes('waiting', 'active')) await sleep(1);
    answer({ jobs_per_s: perSecond(jobs, startedMs) });
  },
  async latency() {
    const latencies = [];
    const worker = new Worker('bench', async (job) => { latencies.push(nowMs() - job.data.sent_ms); },
      { connection, concurrency: AT_ONCE });
    await worker.waitUntilReady();
    await sleep(SETTLE_MS);
    for (let n = 0; n < jobs; n++) {
      await queue.add('stamp', { sent_ms: nowMs() });
      await sleep(30 + Math.random() * 100);
    }
    while (latencies.length < jobs) await sleep(10);
    latencies.sort((a, b) => a - b);
    answer({ p50_ms: latencies[jobs >> 1], p99_ms: latencies[Math.floor(jobs * 0.99)] });
  },
  async enqueue() {
    let startedMs = nowMs();
    for (let n = 0; n < jobs; n++) await queue.add('noop', {});
    const rates = { one_per_s: perSecond(jobs, startedMs) };
    startedMs = nowMs();
    let next = 0;
    const call = async () => { while (next < 2 * jobs) await queue.add('noop', { user_id: next++ }); };
    await Promise.all(Array.from({ length: CALLERS }, call));
    rates.at_once_per_s = perSecond(2 * jobs, startedMs);
    const calls = Math.floor((10 * jobs) / BULK);
    startedMs = nowMs();
    for (let n = 0; n < calls; n++) await many(BULK);
    rates.bulk_per_s = perSecond(calls * BULK, startedMs);
    answer(rates);
  },
  async fill() {
    await fill();
    answer({ jobs });
  },
};
await measures[figure]();
