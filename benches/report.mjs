// Turns what one run of benches/run.sh left behind into Markdown: the figure, its reference in the same run, the ratio.
//   node benches/report.mjs RESULTS_FOLDER "COMMAND" > docs/results/bench-DATE.md
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { cpus, release } from 'node:os';
import { join } from 'node:path';

const [folder, command] = process.argv.slice(2);
const read = (name) => {
  const file = join(folder, `${name}.json`);
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : null;
};
const commandOf = (name) => readFileSync(join(folder, `${name}.command`), 'utf8').trim();
const row = (...cells) => console.log(`| ${cells.join(' | ')} |`);
const table = (...heads) => { console.log(); row(...heads); row(...heads.map(() => '---')); };
const of = (s) => (s?.n ? `${s.p50} / ${s.p95} / ${s.p99} / ${s.max}` : 'none');
const ratio = (a, b) => (a && b ? (a / b).toFixed(2) : '-');

console.log(`# Benchmarks of ${new Date().toISOString().slice(0, 10)}

Command: \`${command.trim()}\`. Machine: ${cpus().length} x ${cpus()[0]?.model ?? 'unknown'}, Linux ${release()}.
What each figure means: benches/README.md. Ratios are to the reference in the same run; absolute figures move with the machine.`);

// Criterion's mean, in nanoseconds, from its own folder.
const mean = (group, bench) => {
  const file = join('target', 'criterion', group, bench, 'new', 'estimates.json');
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')).mean.point_estimate : null;
};
const us = (ns) => (ns ? (ns / 1000).toFixed(ns < 1e5 ? 2 : 0) : '-');
console.log('\n## Cores (`cargo bench -p benches`)');
table('bench', 'ours, us', 'reference', 'reference, us', 'ours / reference');
for (const [group, ours, reference] of [
  ['chunk_reader', 'ours', 'rtmp_crate'], ['mux', 'write_part', 'copy_once'],
  ['playlist_render', 'render', 'reference_gzip'], ['playlist_render', 'gzip_of_a_fresh_render', 'reference_gzip'],
  ['wake', 'answer_1000', 'watch_1000'],
]) row(`${group}: ${ours}`, us(mean(group, ours)), reference, us(mean(group, reference)), ratio(mean(group, ours), mean(group, reference)));

console.log('\n## One 1080p30 stream of 4 Mbit/s packaged');
const base = read('publish-codecast')?.server;
table('server', 'CPU-seconds a minute', 'resident MiB', 'context switches', 'CPU: codecast / this');
for (const name of readdirSync(folder).filter((f) => /^publish-.*\.json$/.test(f)).map((f) => f.slice(0, -5))) {
  const s = read(name).server;
  if (s) row(name.slice('publish-'.length), s.cpu_seconds_per_minute, s.resident_mib, s.context_switches,
    ratio(base?.cpu_seconds_per_minute, s.cpu_seconds_per_minute));
}

const released = read('release');
if (released) {
  console.log('\n## Last byte of a part in to the first byte of its held playlist out, ms');
  table('waiting viewers', 'all: p50 / p95 / p99 / max', 'first viewer: p50 / p95 / p99 / max', 'before its part', 'unexplained parts');
  for (const p of released.phases) row(p.viewers, of(p.release_ms), of(p.first_viewer_ms), p.before_its_part, p.unknown_parts);
}

console.log('\n## Viewers at the live edge');
table('run', 'viewers', 'video lateness, ms: p50 / p95 / p99 / max', 'audio lateness, ms', 'delta share', 'playlist bytes each', 'server CPU-s per Gbit', 'server MiB', 'errors');
for (const name of ['follow', 'follow-delta']) {
  const f = read(name);
  if (f) row(name, f.viewers, of(f.variant_lateness_ms), of(f.audio_lateness_ms), ratio(f.deltas, f.playlists), Math.round(f.playlist_wire_bytes / Math.max(1, f.playlists)),
    f.server ? (f.server.cpu_seconds / f.gbit).toFixed(3) : '-', f.server?.resident_mib ?? '-', JSON.stringify(f.errors));
}

console.log('\n## The timed publisher, five starts (360p30), ms');
table('start', 'paint to coded unit: p50 / p95 / p99 / max', 'grid instant to socket: p50 / p95 / p99 / max', 'late', 'skipped');
for (let n = 1; n <= 5; n++) {
  const t = read(`timed-${n}`);
  if (t) row(n, of(t.encoder_delay_ms), of(t.source_delay_ms), t.late_frames, t.skipped_frames);
}

console.log('\n## Command lines\n\n```');
for (const f of readdirSync(folder).filter((f) => f.endsWith('.command')).sort()) console.log(`${f.slice(0, -8)}: ${commandOf(f.slice(0, -8))}`);
console.log('```');
