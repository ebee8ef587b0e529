'use strict'
// A shop that counts: ?do=login&user=U, ?do=count, ?do=who. Without a session it answers 401 and opens none.
//
//     node app.js NAME PORT redis PORT | sentinel PORT | memcached PORT
//
// An answer is sent when the store has said that it keeps the session; when it says otherwise, the answer is a 503.
const express = require('express')
const session = require('express-session')
const { RedisStore } = require('connect-redis')
const { createClient } = require('redis')
const MemcachedStore = require('connect-memcached')(session)

const [name, port, kind, storePort] = process.argv.slice(2)
const at = { host: '127.0.0.1', port: Number(storePort) }
const complain = error => console.error(`${new Date().toISOString()} ${error.message}`)

// Sessions in one Redis.
async function redis () {
  const client = createClient({ socket: { ...at, reconnectStrategy: 100 }, disableOfflineQueue: true })
  await client.on('error', complain).connect()
  return new RedisStore({ client })
}

// Sessions in a Redis with a replica: a session is kept when the replica has it, too. Who the primary is, the sentinel knows; it is
// asked again after every failure, and nothing is tried twice.
async function sentinel () {
  let primary = null
  const open = async where => {
    const client = createClient({ socket: { ...where, reconnectStrategy: false }, disableOfflineQueue: true })
    return client.on('error', complain).connect()
  }
  const find = async () => {
    const asked = await open(at)
    try {
      const [host, port] = await asked.sendCommand(['SENTINEL', 'GET-MASTER-ADDR-BY-NAME', 'shop'])
      return await open({ host, port: Number(port) })
    } finally {
      asked.destroy()
    }
  }
  const ask = async what => {
    const found = primary ??= find()
    try {
      return await what(await found)
    } catch (error) {
      if (primary === found) primary = null
      found.then(client => client.isOpen && client.destroy(), () => {})
      throw error
    }
  }
  const client = {
    get: key => ask(redis => redis.get(key)),
    del: keys => ask(redis => redis.del(keys)),
    expire: (key, seconds) => ask(redis => redis.expire(key, seconds)),
    set: (...words) => ask(async redis => {
      // Sent together, on one connection: WAIT waits for the writes of its own connection.
      const [, replicas] = await Promise.all([redis.set(...words), redis.wait(1, 1000)])
      if (replicas < 1) throw new Error('no replica has it')
    })
  }
  return new RedisStore({ client })
}

// `failures` and `retries` as they are would let a server wait for minutes for a Memcached that is back.
async function memcached () {
  return new MemcachedStore({ hosts: [`${at.host}:${at.port}`], timeout: 1000, retries: 0, failures: 1000, reconnect: 200, retry: 200 })
}

function shop (store) {
  const app = express()
  app.get('/healthz', (_, response) => response.send('well\n'))
  app.use(session({ store, secret: 'of the example', resave: false, saveUninitialized: false }))
  app.all('/shop', (request, response, next) => {
    const own = request.session
    const say = status => {
      const { user = 'nobody', count = null } = own
      response.status(status).type('text').send(`server=${name} user=${user} count=${count}\n`)
    }
    switch (request.query.do) {
      case 'login':
        // What a session holds beside: a shopping cart of 1 KiB that seldom changes.
        Object.assign(own, { user: request.query.user, count: 0, cart: 'x'.repeat(1024) })
        break
      case 'count':
        if (own.user === undefined) return say(401)
        own.count += 1
        break
      default:
        return say(own.user === undefined ? 401 : 200)
    }
    own.save(error => error ? next(error) : say(200))
  })
  app.use((error, request, response, next) => {
    complain(error)
    // The session of this request is not what the store has: it must not be saved at the end.
    request.session = null
    response.status(503).type('text').send(`server=${name} ${error.message}\n`)
  })
  return app
}

async function main () {
  const store = await { redis, sentinel, memcached }[kind]()
  shop(store).listen(Number(port), '127.0.0.1')
}

main().catch(error => { console.error(error); process.exit(1) })
