// Runs the public HTTP cache conformance suite (cache-tests.fyi, npm package http-cache-tests) against the gateway.
//
//   node run.mjs                        starts the suite's origin and the gateway between it and the suite's client
//   BASE=http://host:port node run.mjs  tests whatever answers there; it must pass requests on to ORIGIN_PORT
//
//   LARDER       the gateway's binary (default: target/debug/larder of this repository)
//   BASE         base URL of another cache; the gateway is not started then
//   ORIGIN_PORT  port of the suite's origin (default: any free one, or 8000 with BASE)
//   ONLY         ids of tests or suites, separated by commas
//   RESULTS      file that takes the results as JSON
//
// Ends with `conformance: N passed, N failed, N skipped` (skipped: failing with a reason) and a non-zero status when a test fails that
// expected.json does not list. Checks only tell how a cache behaves; they are counted and never fail.

import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath, pathToFileURL } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
const suiteDir = process.env.SUITE ?? dirname(createRequire(import.meta.url).resolve('http-cache-tests/package.json'))
const fromSuite = path => import(pathToFileURL(join(suiteDir, path)))

const CHUNK = 100 // tests at a time, as the suite's own runner does
const PATIENCE = 20_000 // milliseconds for one request

// --- processes ---

const children = []
const scratch = mkdtempSync(join(tmpdir(), 'larder-conformance-'))

// Starts a process and resolves with the first group of each pattern, once all of them were seen in its output.
function start (name, command, args, options, patterns) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options })
  children.push(child)
  return new Promise((resolve, reject) => {
    const found = patterns.map(() => undefined)
    const written = []
    const read = line => {
      if (written.length < 50) written.push(line)
      patterns.forEach((pattern, at) => { found[at] ??= line.match(pattern)?.[1] })
      if (found.every(value => value !== undefined)) resolve(found)
    }
    createInterface({ input: child.stdout }).on('line', read)
    createInterface({ input: child.stderr }).on('line', read)
    child.on('error', error => reject(new Error(`${name}: ${error.message}`)))
    child.on('exit', code => reject(new Error(`${name} ended with ${code}:\n${written.join('\n')}`)))
    setTimeout(() => reject(new Error(`${name} does not start:\n${written.join('\n')}`)), PATIENCE).unref()
  })
}

async function startOrigin () {
  const port = process.env.ORIGIN_PORT ?? (process.env.BASE ? '8000' : '0')
  const env = {
    ...process.env,
    npm_config_protocol: 'http',
    npm_config_port: port,
    npm_config_pidfile: join(scratch, 'origin.pid')
  }
  const server = join(suiteDir, 'server', 'server.mjs')
  const [listening] = await start('origin', process.execPath, [server], { cwd: suiteDir, env }, [/Listening on .*:(\d+)\//])
  return `http://127.0.0.1:${listening}`
}

async function startGateway (origin) {
  const binary = process.env.LARDER ?? resolve(here, '..', '..', 'target', 'debug', 'larder')
  const args = ['--listen', '127.0.0.1:0', '--admin', '127.0.0.1:0', '--upstream', origin,
    '--config', join(here, 'larder.toml'), '--data-dir', join(scratch, 'data'), '--log', 'json']
  const [base] = await start('gateway', binary, args, {}, [/data listening on (http:\/\/[^\s"]+)/])
  return base.replace(/\/$/, '')
}

function cleanUp () {
  children.forEach(child => child.kill('SIGKILL'))
  rmSync(scratch, { recursive: true, force: true })
}

// --- tests ---

async function loadSuites () {
  const suites = [...(await fromSuite('tests/index.mjs')).default, (await fromSuite('tests/surrogate-control.mjs')).default]
  const only = process.env.ONLY?.split(',')
  return suites.map(suite => ({
    name: suite.name,
    id: suite.id,
    tests: suite.tests.filter(test => test.browser_only !== true &&
      (!only || only.includes(suite.id) || only.includes(test.id)))
  })).filter(suite => suite.tests.length > 0)
}

// Runs `tests` and returns id -> true or [kind of error, message].
async function runTests (tests, base) {
  const { makeCacheTest, testResults } = await fromSuite('client/test.mjs')
  const config = await fromSuite('client/config.mjs')
  const fetch = createRequire(join(suiteDir, 'cli.mjs'))('node-fetch')
  config.setFetch((url, init) => fetch(url, { ...init, timeout: PATIENCE }))
  config.setBaseUrl(base)
  config.setUseBrowserCache(false)
  for (let at = 0; at < tests.length; at += CHUNK) {
    // A run writes into its test, so each gets a copy.
    const chunk = tests.slice(at, at + CHUNK).map(test => structuredClone(test))
    chunk.forEach(test => delete testResults[test.id])
    await Promise.all(chunk.map(makeCacheTest))
  }
  return Object.fromEntries(tests.map(test => [test.id, testResults[test.id]]))
}

// pass; fail: what the test asserts is not so; setup: it did not get that far; dependency: a test it builds on failed.
function verdicts (tests, results) {
  const byId = new Map(tests.map(test => [test.id, test]))
  const verdict = test => {
    const missing = (test.depends_on ?? []).filter(id => byId.has(id)).find(id => verdict(byId.get(id)).state !== 'pass')
    if (missing) return { state: 'dependency', message: missing }
    const result = results[test.id]
    if (result === true) return { state: 'pass' }
    const [kind, message] = result ?? ['none', 'not run']
    return { state: kind === 'Assertion' ? 'fail' : 'setup', message: `${message}` }
  }
  return new Map(tests.map(test => [test.id, { kind: test.kind ?? 'required', ...verdict(test) }]))
}

// --- report ---

function printTable (suites, verdict) {
  const kinds = ['required', 'optimal', 'check']
  const row = cells => console.log(cells[0].padEnd(46) + cells.slice(1).map(cell => `${cell}`.padStart(14)).join(''))
  const counts = tests => [
    ...kinds.map(kind => {
      const own = tests.map(test => verdict.get(test.id)).filter(one => one.kind === kind)
      return own.length ? `${own.filter(one => one.state === 'pass').length}/${own.length}` : '-'
    }),
    tests.filter(test => verdict.get(test.id).state === 'dependency').length || '-'
  ]
  row(['suite', 'required', 'optimal', 'checks', 'by dependency'])
  suites.forEach(suite => row([suite.name, ...counts(suite.tests)]))
  row(['all', ...counts(suites.flatMap(suite => suite.tests))])
}

function report (suites, results, secondTry) {
  const tests = suites.flatMap(suite => suite.tests)
  const verdict = verdicts(tests, results)
  const allowed = JSON.parse(readFileSync(join(here, 'expected.json'))).failures
  printTable(suites, verdict)

  const line = ([id, one]) => console.log(`  ${id} [${one.kind}] ${one.state === 'dependency' ? 'needs' : `${one.state}:`} ${one.message}`)
  const failed = [...verdict].filter(([, one]) => one.state !== 'pass')
  const binding = failed.filter(([, one]) => one.kind !== 'check')
  const unexpected = binding.filter(([id]) => !(id in allowed))
  const section = (title, list, print = line) => {
    if (list.length === 0) return
    console.log(`\n${title}:`)
    list.forEach(print)
  }
  section('checks answered no', failed.filter(([, one]) => one.kind === 'check'))
  section('passed at the second try, alone', secondTry, id => console.log(`  ${id}`))
  section('expected failures', binding.filter(([id]) => id in allowed), one => {
    line(one)
    console.log(`    ${allowed[one[0]]}`)
  })
  section('expected to fail, but passed: remove from expected.json',
    Object.keys(allowed).filter(id => verdict.get(id)?.state === 'pass'), id => console.log(`  ${id}`))
  section('FAILED', unexpected)

  const total = [...verdict.values()].filter(one => one.kind !== 'check').length
  const expected = binding.length - unexpected.length
  const checks = [...verdict.values()].filter(one => one.kind === 'check')
  const yes = checks.filter(one => one.state === 'pass').length
  console.log(`\n${yes} of ${checks.length} checks answered yes; ${expected} fail with a reason (expected.json), counted as skipped`)
  console.log(`conformance: ${total - binding.length} passed, ${unexpected.length} failed, ${expected} skipped`)
  if (process.env.RESULTS) writeFileSync(process.env.RESULTS, JSON.stringify(Object.fromEntries(verdict), null, 2) + '\n')
  return unexpected.length === 0
}

async function main () {
  const origin = await startOrigin()
  const base = process.env.BASE?.replace(/\/$/, '') ?? await startGateway(origin)
  const suites = await loadSuites()
  const tests = suites.flatMap(suite => suite.tests)
  console.log(`${tests.length} tests against ${process.env.BASE ?? 'larder'}`)
  const results = await runTests(tests, base)
  // A busy machine can spoil what depends on seconds: what failed gets a second chance, without the crowd.
  const failed = tests.filter(test => results[test.id] !== true)
  const again = await runTests(failed, base)
  Object.assign(results, again)
  return report(suites, results, failed.map(test => test.id).filter(id => again[id] === true))
}

main().then(ok => { process.exitCode = ok ? 0 : 1 }, error => {
  console.error(error.message)
  process.exitCode = 2
}).finally(cleanUp)
