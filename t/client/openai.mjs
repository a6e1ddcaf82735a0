// SPDX-License-Identifier: Apache-2.0
// What the official client library makes of pdplane; prints TAP.  Started by
// t/61-openai-client.t, which says in the environment where the nodes are:
// PD_API, PD_ADMIN (ports of the admin listeners, comma separated).
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import OpenAI from 'openai';

const baseURL = `http://127.0.0.1:${process.env.PD_API}/v1`;
const admin = process.env.PD_ADMIN.split(',');
const client = new OpenAI({ baseURL, apiKey: 'none', maxRetries: 0, timeout: 20000 });
let count = 0;

async function test(name, code) {
    count++;
    try {
        await code();
        console.log(`ok ${count} - ${name}`);
    } catch (e) {
        console.log(`not ok ${count} - ${name}`);
        for (const line of String(e.stack ?? e).split('\n').slice(0, 14)) console.log(`# ${line}`);
    }
}

async function collect(stream) {
    const out = [];
    for await (const e of stream) out.push(e);
    return out;
}

async function blocksAreFree() {
    for (const port of admin) {
        const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
        for (const [, labels, all] of text.matchAll(/^pdplane_kv_blocks(\{.*\}) (\d+)$/gm)) {
            const free = text.split('\n').find((l) => l.startsWith(`pdplane_kv_blocks_free${labels} `));
            if (Number(free.split(' ').pop()) !== Number(all)) return false;
        }
    }
    return true;
}

const user = (content) => [{ role: 'user', content }];
const story = user('Tell me a story about an owl and a lamp.');
const base = { model: 'tiny', temperature: 0, max_tokens: 24 };
let text;

await test('chat.completions.create', async () => {
    const r = await client.chat.completions.create({ ...base, messages: story });
    text = r.choices[0].message.content;
    assert.match(text, /^Once upon a time, there was a little owl/);
    assert.equal(r.object, 'chat.completion');
    assert.match(r.id, /^chatcmpl-/);
    assert.equal(r.model, 'tiny');
    assert.equal(r.choices[0].message.role, 'assistant');
    assert.equal(r.choices[0].finish_reason, 'length');
    assert.equal(r.usage.completion_tokens, 24);
    assert.equal(r.usage.total_tokens, r.usage.prompt_tokens + 24);
    assert.ok(Math.abs(r.created - Date.now() / 1000) < 60);
    assert.equal(typeof r._request_id, 'string');
});
await test('chat.completions.create streams the same text', async () => {
    const events = await collect(await client.chat.completions.create({ ...base, messages: story, stream: true }));
    assert.equal(events.map((e) => e.choices[0]?.delta?.content ?? '').join(''), text);
    assert.equal(events[0].choices[0].delta.role, 'assistant');
    assert.equal(events[0].object, 'chat.completion.chunk');
    assert.equal(events.at(-1).choices[0].finish_reason, 'length');
    assert.equal(new Set(events.map((e) => e.id)).size, 1);
    assert.ok(events.every((e) => e.usage == null));
    assert.ok(events.length > 10);
});
await test('chat.completions.stream helper', async () => {
    const final = await client.chat.completions.stream({ ...base, messages: story }).finalChatCompletion();
    assert.equal(final.choices[0].message.content, text);
});
await test('include_usage', async () => {
    const events = await collect(await client.chat.completions.create({ ...base, messages: story, stream: true,
        stream_options: { include_usage: true } }));
    const last = events.at(-1);
    assert.deepEqual(last.choices, []);
    assert.equal(last.usage.completion_tokens, 24);
    assert.ok(last.usage.prompt_tokens_details.cached_tokens >= 0);
    assert.ok(events.slice(0, -1).every((e) => e.usage == null));
});
await test('max_completion_tokens', async () => {
    const r = await client.chat.completions.create({ model: 'tiny', temperature: 0, messages: story, max_completion_tokens: 5 });
    assert.equal(r.usage.completion_tokens, 5);
});
await test('a natural end has finish_reason stop', async () => {
    const r = await client.chat.completions.create({ ...base, max_tokens: 200, messages: user('Repeat these words: lamp, river, goat.') });
    assert.equal(r.choices[0].finish_reason, 'stop');
});
await test('several turns with a system message', async () => {
    const r = await client.chat.completions.create({ ...base, messages: [{ role: 'system', content: 'You are kind.' },
        ...story, { role: 'assistant', content: text }, ...user('And then?')] });
    assert.ok(r.choices[0].message.content.length > 0);
});
await test('content as parts', async () => {
    const r = await client.chat.completions.create({ ...base,
        messages: [{ role: 'user', content: [{ type: 'text', text: story[0].content }] }] });
    assert.equal(r.choices[0].message.content, text);
});
await test('completions.create', async () => {
    const r = await client.completions.create({ ...base, prompt: 'Once upon a time' });
    assert.match(r.choices[0].text, /^, there was a little girl named Zoe/);
    assert.equal(r.object, 'text_completion');
    assert.match(r.id, /^cmpl-/);
});
await test('completions.create streams', async () => {
    const events = await collect(await client.completions.create({ ...base, prompt: 'Once upon a time', stream: true }));
    assert.match(events.map((e) => e.choices[0]?.text ?? '').join(''), /^, there was a little girl named Zoe/);
    assert.equal(events.at(-1).choices[0].finish_reason, 'length');
});
await test('several prompts', async () => {
    const r = await client.completions.create({ ...base, max_tokens: 8, prompt: ['Once upon a time', 'The cat', 'Once upon a time'] });
    assert.deepEqual(r.choices.map((c) => c.index), [0, 1, 2]);
    assert.equal(r.choices[0].text, r.choices[2].text);
    assert.notEqual(r.choices[0].text, r.choices[1].text);
});
await test('several prompts stream', async () => {
    const events = await collect(await client.completions.create({ ...base, max_tokens: 8, stream: true,
        prompt: ['Once upon a time', 'The cat'] }));
    const r = await client.completions.create({ ...base, max_tokens: 8, prompt: ['Once upon a time', 'The cat'] });
    for (const i of [0, 1]) {
        const t = events.filter((e) => e.choices[0]?.index === i).map((e) => e.choices[0].text).join('');
        assert.equal(t, r.choices[i].text);
    }
});
await test('token ids as prompt', async () => {
    const r = await client.completions.create({ ...base, prompt: [1, 551, 682, 320, 514] });
    assert.match(r.choices[0].text, /^, there was a little girl named Zoe/);
});
await test('echo', async () => {
    const r = await client.completions.create({ ...base, prompt: 'Once upon a time', echo: true });
    assert.match(r.choices[0].text, /^Once upon a time, there was/);
});
await test('n choices with a seed', async () => {
    const ask = { model: 'tiny', max_tokens: 24, messages: story, n: 3, seed: 7, temperature: 1 };
    const a = await client.chat.completions.create(ask);
    const b = await client.chat.completions.create(ask);
    assert.equal(a.choices.length, 3);
    assert.deepEqual(a.choices.map((c) => c.message.content), b.choices.map((c) => c.message.content));
    assert.equal(new Set(a.choices.map((c) => c.message.content)).size, 3);
    assert.equal(a.usage.completion_tokens, 72);
    const events = await collect(await client.chat.completions.create({ ...ask, stream: true }));
    for (const i of [0, 1, 2]) {
        const t = events.filter((e) => e.choices[0]?.index === i).map((e) => e.choices[0].delta.content ?? '').join('');
        assert.equal(t, a.choices[i].message.content);
    }
    assert.equal(events.filter((e) => e.choices[0]?.finish_reason).length, 3);
});
await test('stop', async () => {
    const r = await client.chat.completions.create({ ...base, max_tokens: 100, messages: story, stop: [' named', 'zzz'] });
    assert.equal(r.choices[0].message.content, 'Once upon a time, there was a little owl');
    assert.equal(r.choices[0].finish_reason, 'stop');
    const events = await collect(await client.chat.completions.create({ ...base, max_tokens: 100, messages: story,
        stop: ' named', stream: true }));
    assert.equal(events.map((e) => e.choices[0]?.delta?.content ?? '').join(''), 'Once upon a time, there was a little owl');
});
await test('logprobs of chat', async () => {
    const r = await client.chat.completions.create({ ...base, max_tokens: 6, messages: story, logprobs: true, top_logprobs: 3 });
    const c = r.choices[0].logprobs.content;
    assert.equal(c.length, 6);
    assert.equal(c.map((t) => t.token).join(''), r.choices[0].message.content);
    for (const t of c) {
        assert.equal(t.top_logprobs.length, 3);
        assert.equal(t.top_logprobs[0].token, t.token);
        assert.equal(t.top_logprobs[0].logprob, t.logprob);
        assert.ok(t.logprob <= 0);
        assert.equal(Buffer.from(t.bytes).toString(), t.token);
    }
});
await test('logprobs of completions', async () => {
    const r = await client.completions.create({ ...base, max_tokens: 6, prompt: 'Once upon a time', logprobs: 2 });
    const l = r.choices[0].logprobs;
    assert.equal(l.tokens.join(''), r.choices[0].text);
    assert.equal(l.token_logprobs.length, 6);
    assert.equal(Object.keys(l.top_logprobs[0]).length, 2);
    assert.equal(l.text_offset[0], 0);
});
await test('seeds: the same text, another text', async () => {
    const ask = (seed) => client.completions.create({ model: 'tiny', max_tokens: 24, prompt: 'Once upon a time', temperature: 1, seed });
    const [a, b, c] = [await ask(1), await ask(1), await ask(2)];
    assert.equal(a.choices[0].text, b.choices[0].text);
    assert.notEqual(a.choices[0].text, c.choices[0].text);
});
await test('sixteen at a time', async () => {
    const all = await Promise.all(Array.from({ length: 16 }, () => client.chat.completions.create({ ...base, messages: story })));
    assert.ok(all.every((r) => r.choices[0].message.content === text));
});
await test('models.list and models.retrieve', async () => {
    const ids = [];
    for await (const m of client.models.list()) ids.push(m.id);
    assert.ok(ids.includes('tiny'));
    const m = await client.models.retrieve('tiny');
    assert.equal(m.id, 'tiny');
    assert.equal(m.object, 'model');
    await assert.rejects(client.models.retrieve('none'), OpenAI.NotFoundError);
});

// ---- leaving
await test('abort half-way frees all blocks within a second', async () => {
    for (let i = 0; i < 5; i++) {
        const stream = await client.chat.completions.create({ ...base, max_tokens: 3000, messages: user('Tell me a long story.'),
            temperature: 1, seed: i, n: 4, stream: true });
        let n = 0;
        for await (const e of stream) {
            if (e && ++n === 5) { stream.controller.abort(); break; }
        }
    }
    const end = Date.now() + 1000;
    while (!(await blocksAreFree())) {
        assert.ok(Date.now() < end, 'blocks are still taken');
        await sleep(20);
    }
});
await test('abort before the first token', async () => {
    const controller = new AbortController();
    const long = 'word '.repeat(1200);
    const p = client.completions.create({ ...base, prompt: long }, { signal: controller.signal });
    await sleep(3);
    controller.abort();
    await assert.rejects(p, OpenAI.APIUserAbortError);
    const end = Date.now() + 1000;
    while (!(await blocksAreFree())) {
        assert.ok(Date.now() < end, 'blocks are still taken');
        await sleep(20);
    }
});

// ---- errors of pdplane itself
async function fails(params, Class, check = {}) {
    const error = await client.chat.completions.create(params).then(() => null, (e) => e);
    assert.ok(error instanceof Class, `${error?.constructor?.name} ${error?.message} is not ${Class.name}`);
    assert.equal(typeof error.requestID, 'string');
    for (const [k, v] of Object.entries(check)) assert.equal(error[k], v, k);
    return error;
}
for (const [name, more, code, param] of [
    ['no messages', { messages: undefined }, 'missing_required_parameter', 'messages'],
    ['messages of the wrong type', { messages: 7 }, null, 'messages'],
    ['a temperature out of range', { temperature: 9 }, 'invalid_value', 'temperature'],
    ['n out of range', { n: 1000 }, 'invalid_value', 'n'],
    ['an unknown role', { messages: [{ role: 'wizard', content: 'x' }] }, null, null],
    ['stop of the wrong type', { stop: 5 }, null, 'stop'],
    ['tools', { tools: [{ type: 'function', function: { name: 'f', parameters: {} } }] }, 'unsupported_parameter', 'tools'],
    ['too long a prompt', { messages: user('word '.repeat(6000)) }, 'context_length_exceeded', null],
]) {
    await test(`BadRequestError: ${name}`, async () => {
        const e = await fails({ ...base, messages: story, ...more }, OpenAI.BadRequestError, { type: 'invalid_request_error' });
        if (code) assert.equal(e.code, code);
        if (param) assert.equal(e.param, param);
    });
}
await test('NotFoundError: an unknown model', () => fails({ ...base, model: 'gpt-x', messages: story }, OpenAI.NotFoundError,
    { code: 'model_not_found', param: 'model', type: 'not_found_error' }));
await test('NotFoundError: an unknown path', () => assert.rejects(client.embeddings.create({ model: 'tiny', input: 'x' }),
    OpenAI.NotFoundError));
await test('RateLimitError: too many at a time', async () => {
    const streams = await Promise.all(Array.from({ length: 24 }, () => client.chat.completions.create({ ...base, messages: story,
        max_tokens: 2000, stop: ['never this'], temperature: 1, stream: true })));
    const e = await fails({ ...base, messages: story }, OpenAI.RateLimitError, { type: 'rate_limit_error', code: 'queue_full' });
    assert.ok(e.headers.get('retry-after'));
    for (const s of streams) s.controller.abort();
    await sleep(100);
});
await test('after a RateLimitError the library comes back by itself', async () => {
    const streams = await Promise.all(Array.from({ length: 24 }, () => client.chat.completions.create({ ...base, messages: story,
        max_tokens: 2000, temperature: 1, stream: true })));
    setTimeoutAbort(streams, 300);
    const r = await client.chat.completions.create({ ...base, messages: story }, { maxRetries: 3 });
    assert.equal(r.choices[0].message.content, text);
});
function setTimeoutAbort(streams, ms) {
    setTimeout(() => { for (const s of streams) s.controller.abort(); }, ms);
}

// ---- errors of a server behind the router; its models say what it answers
for (const [status, Class] of [[400, OpenAI.BadRequestError], [401, OpenAI.AuthenticationError],
    [403, OpenAI.PermissionDeniedError], [404, OpenAI.NotFoundError], [409, OpenAI.ConflictError],
    [422, OpenAI.UnprocessableEntityError], [429, OpenAI.RateLimitError], [500, OpenAI.InternalServerError],
    [502, OpenAI.InternalServerError], [503, OpenAI.InternalServerError]]) {
    await test(`${Class.name} from status ${status} of a server`, async () => {
        const e = await fails({ ...base, model: `say-${status}`, messages: story }, Class);
        assert.ok(e.status === status || (status === 502 && e.status === 503));
    });
}
await test('a server that breaks off: APIError behind the tokens', async () => {
    const stream = await client.chat.completions.create({ ...base, model: 'break', messages: story, stream: true });
    const got = [];
    const error = await (async () => { for await (const e of stream) got.push(e); })().then(() => null, (e) => e);
    assert.equal(got.length, 1);
    assert.ok(error instanceof OpenAI.APIError);
    assert.equal(error.code, 'engine_protocol');
});
await test('a server that is cut: InternalServerError', () => fails({ ...base, model: 'cut', messages: story }, OpenAI.InternalServerError));

// ---- the decode node dies; the test that started us kills it when asked
await test('a decode node that dies: APIError behind the tokens, nothing after it', async () => {
    const stream = await client.chat.completions.create({ ...base, max_tokens: 3000, temperature: 1, seed: 1, n: 4, messages: story,
        stream: true });
    let n = 0;
    const error = await (async () => {
        for await (const e of stream) if (e && ++n === 5) console.log('kill decode');
    })().then(() => null, (e) => e);
    assert.ok(n >= 5);
    assert.ok(error instanceof OpenAI.APIError, String(error));
    assert.equal(error.type, 'server_error');
});
await test('no decode node: InternalServerError', () => fails({ ...base, messages: story }, OpenAI.InternalServerError, { status: 503 }));
console.log(`1..${count}`);
