// The SDKs of OpenAI and Anthropic for Node: what a client holds is the same on a miss and on a hit.
//
//   GATEWAY   base URL of the gateway
//   PROVIDER  base URL of the simulator, which says what it has been asked for

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { test } from 'node:test'

import Anthropic from '@anthropic-ai/sdk'
import OpenAI, { toFile } from 'openai'

const { GATEWAY, PROVIDER } = process.env
const timeout = 20_000
const openai = (options = {}) => new OpenAI({ baseURL: `${GATEWAY}/openai/v1`, apiKey: 'sk-one', maxRetries: 0, timeout, ...options })
const anthropic = (options = {}) => new Anthropic({ baseURL: `${GATEWAY}/anthropic`, apiKey: 'sk-ant-one', maxRetries: 0, timeout, ...options })

const mark = () => `What is the capital of France? [${randomUUID().replaceAll('-', '')}]`
const tag = prompt => prompt.match(/\[(\w+)\]/)[1]
const calls = async prompt => (await fetch(`${PROVIDER}/-/calls?${tag(prompt)}`)).json()
const behave = (prompt, how) => fetch(`${PROVIDER}/-/behave?${tag(prompt)}`, { method: 'POST', body: JSON.stringify(how) })
const isHit = fields => /\blarder\s*;\s*hit\b/.test(fields.get('cache-status') ?? '')

// An object as it is, without what the SDK hides in it.
const plain = value => JSON.parse(JSON.stringify(value))

async function read (promise, stream) {
  const { data, response } = await promise.withResponse()
  if (!stream) return { items: [plain(data)], fields: response.headers }
  const items = []
  for await (const event of data) items.push(plain(event))
  return { items, fields: response.headers }
}

async function twice (prompt, ask) {
  const first = await ask()
  assert.equal((await calls(prompt)).calls, 1)
  assert.ok(!isHit(first.fields))
  const second = await ask()
  assert.equal((await calls(prompt)).calls, 1, `Cache-Status: ${second.fields.get('cache-status')}`)
  assert.ok(isHit(second.fields), second.fields.get('cache-status'))
  assert.deepEqual(second.items, first.items)
  return first
}

const user = prompt => [{ role: 'user', content: prompt }]
const tools = [{ type: 'function', function: { name: 'get_capital', parameters: { type: 'object', properties: { country: { type: 'string' } } } } }]
const anthropicTools = [{ name: 'get_exchange_rate', input_schema: { type: 'object', properties: { from_currency: { type: 'string' } } } }]

const cases = {
  'openai chat': (prompt, stream) => openai().chat.completions.create({ model: 'gpt-4o', messages: user(prompt), temperature: 0, stream }),
  'openai chat with tools': (prompt, stream) =>
    openai().chat.completions.create({ model: 'gpt-4o', messages: user(prompt), temperature: 0, tools, stream }),
  'openai chat with usage': (prompt, stream) =>
    openai().chat.completions.create({
      model: 'gpt-4o', messages: user(prompt), temperature: 0, stream, ...(stream ? { stream_options: { include_usage: true } } : {})
    }),
  'openai chat in JSON mode': (prompt, stream) =>
    openai().chat.completions.create({ model: 'gpt-4o', messages: user(prompt), temperature: 0, response_format: { type: 'json_object' }, stream }),
  'openai responses': (prompt, stream) => openai().responses.create({ model: 'gpt-4o', input: prompt, temperature: 0, stream }),
  'openai completions': (prompt, stream) =>
    openai().completions.create({ model: 'gpt-3.5-turbo-instruct', prompt, temperature: 0, stream }),
  // The SDK knows no temperature any more; the API does.
  'anthropic messages': (prompt, stream) =>
    anthropic().messages.create({ model: 'claude-opus-4-6', max_tokens: 64, messages: user(prompt), temperature: 0, stream }),
  'anthropic messages with tools': (prompt, stream) =>
    anthropic().messages.create({ model: 'claude-opus-4-6', max_tokens: 64, messages: user(prompt), temperature: 0, tools: anthropicTools, stream }),
  'anthropic messages with thinking': (prompt, stream) =>
    anthropic().messages.create(
      { model: 'claude-opus-4-6', max_tokens: 4096, messages: user(prompt), thinking: { type: 'enabled', budget_tokens: 1024 }, stream },
      { headers: { 'x-larder-store': 'always' } })
}

for (const [name, ask] of Object.entries(cases)) {
  for (const stream of [false, true]) {
    test(`${name}, ${stream ? 'streamed' : 'plain'}: a hit is what the miss was`, async () => {
      const prompt = mark()
      const first = await twice(prompt, () => read(ask(prompt, stream), stream))
      if (stream) assert.ok(first.items.length > 3, 'event by event')
    })
  }
}

test('openai: the stream helper puts the same message together', async () => {
  const prompt = mark()
  const ask = async () => {
    const runner = openai().chat.completions.stream({ model: 'gpt-4o', messages: user(prompt), temperature: 0, tools })
    return plain(await runner.finalChatCompletion())
  }
  assert.deepEqual(await ask(), await ask())
  assert.equal((await calls(prompt)).calls, 1)
})

test('anthropic: the stream helper puts the same message together', async () => {
  const prompt = mark()
  const ask = async () =>
    plain(await anthropic().messages.stream({ model: 'claude', max_tokens: 64, messages: user(prompt), temperature: 0, tools: anthropicTools }).finalMessage())
  const first = await ask()
  assert.deepEqual(await ask(), first)
  assert.deepEqual(first.content.at(-1).input, { from_currency: 'USD', to_currency: 'EUR' })
  assert.equal((await calls(prompt)).calls, 1)
})

test('anthropic: counts of tokens', async () => {
  const prompt = mark()
  await twice(prompt, () => read(anthropic().messages.countTokens({ model: 'claude', messages: user(prompt) }), false))
})

for (const encoding of [undefined, 'float', 'base64']) {
  test(`openai: embeddings as ${encoding ?? 'the SDK wants them'}`, async () => {
    const key = `sk-${tag(mark())}`
    const embed = input => openai({ apiKey: key }).embeddings.create({ model: 'text-embedding-3-small', input, ...(encoding ? { encoding_format: encoding } : {}) })
    const first = plain(await embed(['a', 'b']))
    const mixed = plain(await embed(['c', 'b', 'a']))
    assert.deepEqual(mixed.data.map(item => item.index), [0, 1, 2])
    assert.deepEqual(mixed.data[1].embedding, first.data[1].embedding)
    assert.deepEqual(mixed.data[2].embedding, first.data[0].embedding)
    const { bodies } = await (await fetch(`${PROVIDER}/-/calls?${key}`)).json()
    assert.deepEqual(bodies.map(body => JSON.parse(atob(body)).input), [['a', 'b'], ['c']])
  })
}

test('openai: transcriptions, whose boundary is another each time', async () => {
  const prompt = mark()
  await twice(prompt, async () =>
    read(openai().audio.transcriptions.create({ file: await toFile(Buffer.from(prompt), 'a.wav'), model: 'gpt-4o-transcribe', temperature: 0 }), false))
})

test('openai: a limit of rate raises and is not stored', async () => {
  const prompt = mark()
  await behave(prompt, { status: 429, retry_after: 7, times: 1 })
  await assert.rejects(cases['openai chat'](prompt, false), raised => {
    assert.ok(raised instanceof OpenAI.RateLimitError)
    assert.equal(raised.headers.get('retry-after'), '7')
    return true
  })
  assert.ok(!isHit((await read(cases['openai chat'](prompt, false), false)).fields))
  assert.ok(isHit((await read(cases['openai chat'](prompt, false), false)).fields))
  assert.equal((await calls(prompt)).calls, 2)
})

for (const [name, Sdk] of [['openai chat', OpenAI], ['anthropic messages', Anthropic]]) {
  test(`${name}: an error inside a stream raises and is not stored`, async () => {
    const prompt = mark()
    await behave(prompt, { error_at: 2, times: 1 })
    await assert.rejects(read(cases[name](prompt, true), true), raised => raised instanceof Sdk.APIError)
    assert.ok(!isHit((await read(cases[name](prompt, true), true)).fields))
    assert.ok(isHit((await read(cases[name](prompt, true), true)).fields))
  })

  test(`${name}: a stream that breaks off raises and is not stored`, async () => {
    const prompt = mark()
    await behave(prompt, { cut_at: 3, times: 1 })
    await assert.rejects(read(cases[name](prompt, true), true))
    const whole = await read(cases[name](prompt, true), true)
    assert.ok(!isHit(whole.fields) && whole.items.length > 3)
    assert.ok(isHit((await read(cases[name](prompt, true), true)).fields))
  })

  test(`${name}: plain and streamed never answer for each other`, async () => {
    const prompt = mark()
    const [whole, events] = [await read(cases[name](prompt, false), false), await read(cases[name](prompt, true), true)]
    assert.ok(!isHit(events.fields))
    assert.equal(whole.items.length, 1)
    assert.ok(events.items.length > 1)
    assert.equal((await calls(prompt)).calls, 2)
  })
}

test('two keys never meet', async () => {
  const prompt = mark()
  const ask = apiKey => openai({ apiKey }).chat.completions.create({ model: 'gpt-4o', messages: user(prompt), temperature: 0 })
  assert.notEqual((await ask('sk-one')).id, (await ask('sk-two')).id)
})

test('a client that gives up in the middle of a stream hurts nobody', async () => {
  const prompt = mark()
  await behave(prompt, { event_delay: 0.02, times: 1 })
  const stream = await cases['openai chat'](prompt, true)
  const follower = read(cases['openai chat'](prompt, true), true)
  for await (const event of stream) {
    assert.ok(event.id)
    break
  }
  assert.ok((await follower).items.length > 3)
  assert.equal((await calls(prompt)).calls, 1)
})

test('the provider gets the bytes that were sent', async () => {
  const prompt = mark()
  let sent
  const spy = (url, init) => {
    sent = init.body
    return fetch(url, init)
  }
  await openai({ fetch: spy }).chat.completions.create({ model: 'gpt-4o', messages: user(`${prompt} é 😀 \u2028`), temperature: 0, tools })
  const { bodies } = await calls(prompt)
  assert.equal(Buffer.from(bodies[0], 'base64').toString(), sent)
})
