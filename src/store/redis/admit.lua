-- What all processes of a limiter ask, in one step: admissions, releases, settlements, cooldowns, changed limits.
--
-- The same arithmetic as src/bucket.rs and src/window.rs, with the server's clock. Lua counts in doubles: times are whole
-- microseconds and amounts whole tokens, both exact below 2^53; only the level of a bucket has a fraction, and whatever
-- is added to it is rounded down (by 2^-52 of it), so that rounding never lets more leave.
--
-- KEYS[1]: a hash, and nothing else: so a cluster can always say who has it, also while its slot is on the way from one
-- node to another. Its fields: `state`; `processes`, the names of those; `p:NAME`, one of them; `w:...`, the slices of the
-- windows.
-- ARGV[1]: the message, a MessagePack array; see `Message` in wire.rs, which names each part.
-- The answer is an array of whole numbers; see `Answer` in wire.rs.

local MAGIC = 'penstock-3'

-- A rate: what was configured, then how it stands.
local DIMENSION, AMOUNT, PERIOD, BURST, SPAN, SPEED, SPEED_UNTIL = 1, 2, 3, 4, 5, 6, 7
local LEVEL, LAST, COOLDOWN = 8, 9, 10
-- Its window: what is counted; where the oldest slice begins and when it was last charged; the newest slice, which is
-- kept here while it grows. A slice in the hash is (last, amount, where the next begins). -1 is none.
local USED, HEAD, HEAD_LAST, TAIL, TAIL_LAST, TAIL_AMOUNT = 11, 12, 13, 14, 15, 16
-- Amount and burst as they were given or found out, before answers of the provider made less of them; the number under which
-- its slices are kept, since two rates of one dimension may have the same period.
local GIVEN_AMOUNT, GIVEN_BURST, NUMBER = 17, 18, 19

-- The state as a whole.
local CLOCK, WALL, LEASE_CLOCK, BORN, CONCURRENCY, HELD, MEMBERS, SWEEP_AT = 2, 3, 4, 5, 6, 7, 8, 9
local COOLING, SPENT_UNTIL, SPENT_RESET, SPENT_DIMENSION, LINE, RATES = 10, 11, 12, 13, 14, 15
-- Which limits these are; of which dimensions (1, 2, 4, 8) they were given, and of which the provider named them; until
-- when the key is kept; the number of the rate that was made last.
local EDITION, OWNED, TOLD, KEPT, NUMBERS = 16, 17, 18, 19, 20
-- Among the dimensions that are given: the concurrency.
local SLOTS = 16

local SECOND = 1000000
-- A gap without any message is no proof that leases are over: it may be the server that was away, or its clock that was
-- set. Leases age by this much at the most for it.
local LEASE_STEP = 5 * SECOND
-- Who was told that a slot is free and does not ask within this time is passed over.
local GRACE = 300000
local SPEED_HOLDS = 60 * SECOND
-- Further away than anybody waits, and more than anybody owes; counted exactly.
local NEVER = 2 ^ 53

local message = cmsgpack.unpack(ARGV[1])
local process, epoch, register, seen, fresh_limits = message[1], message[2], message[3], message[4], message[5]
local released, holds, horizon, reach, lease = message[6], message[7], message[8], message[9], message[10]
local limits, asks, settles, cooldowns = message[11], message[12], message[13], message[14]
local debits, restores, paces, spent, leaving, test_clock = message[15], message[16], message[17], message[18],
    message[19], message[20]
local edition, away, waits = message[21], message[22], message[23]

local floor, ceil, max, min, abs, band = math.floor, math.ceil, math.max, math.min, math.abs, bit.band
local key = KEYS[1]

local function down(x)
    return x - abs(x) * 2.220446049250313e-16
end

-- Time. -------------------------------------------------------------------------------------------------------------

local wall = test_clock
if wall < 0 then
    local time = redis.call('TIME')
    wall = tonumber(time[1]) * SECOND + tonumber(time[2])
end

local function strange()
    return redis.error_reply('PENSTOCK the key ' .. key .. ' holds something else than the state of a limiter')
end

local kept = redis.call('HMGET', key, 'state', 'p:' .. process)
local raw = kept[1]
local state, created = nil, 0
if raw then
    local ok, known = pcall(cmsgpack.unpack, raw)
    if ok and type(known) == 'table' and known[1] ~= MAGIC and string.sub(tostring(known[1]), 1, 9) == 'penstock-' then
        return redis.error_reply('PENSTOCK the key ' .. key .. ' is of another version of Penstock (' .. known[1]
            .. '; this one writes ' .. MAGIC .. ')')
    end
    if not ok or type(known) ~= 'table' or known[1] ~= MAGIC then
        return strange()
    end
    state = known
elseif register == 0 then
    return { 1, wall, 0 } -- nobody knows this process here
elseif redis.call('EXISTS', key) == 1 then
    return strange()
else
    created = 1
    state = { MAGIC, wall, wall, wall, wall, 0, 0, 0, 0, 0, 0, 0, 0, {}, {}, 0, 0, 0, 0, 0 }
end

-- The clock goes on by what the server's does, and never back.
local passed = max(0, wall - state[WALL])
local now = state[CLOCK] + passed
state[CLOCK], state[WALL] = now, wall
local lease_now = state[LEASE_CLOCK] + min(passed, LEASE_STEP)
state[LEASE_CLOCK] = lease_now
local rates = state[RATES]

-- Buckets. ----------------------------------------------------------------------------------------------------------

-- The level that it has at a time, unless it is older than what the bucket knows. A grant comes on a whole microsecond; what
-- that one refills is kept beyond the capacity.
local function level_at(rate, flow, time)
    local at = rate[LEVEL]
    if time > rate[LAST] then
        at = down(at + down((time - rate[LAST]) * flow))
    end
    return min(at, rate[BURST] + flow)
end

local function speed_of(rate)
    return rate[AMOUNT] * rate[SPEED] / (rate[PERIOD] * 1000)
end

local function flow(rate)
    if rate[SPEED] < 1000 and now >= rate[SPEED_UNTIL] then
        -- Until then it was as slow as it was told to be.
        rate[LEVEL] = level_at(rate, speed_of(rate), rate[SPEED_UNTIL])
        rate[LAST], rate[SPEED] = max(rate[LAST], rate[SPEED_UNTIL]), 1000
    end
    return speed_of(rate)
end

local function level(rate, flow)
    return level_at(rate, flow, now)
end

local function put(rate, level)
    rate[LEVEL] = max(level, -NEVER)
    rate[LAST] = max(rate[LAST], now) -- after a cooldown it refills from its end on
end

-- Windows. ----------------------------------------------------------------------------------------------------------

local function field(rate, start)
    return string.format('w:%.0f:%.0f', rate[NUMBER], start)
end

local function slice(rate, start)
    if start == rate[TAIL] then
        return rate[TAIL_LAST], rate[TAIL_AMOUNT], -1
    end
    local kept = redis.call('HGET', key, field(rate, start))
    if kept then
        return cmsgpack.unpack(kept)
    end
end

local function keep(rate, start, last, amount, next)
    if start == rate[TAIL] then
        rate[TAIL_LAST], rate[TAIL_AMOUNT] = last, amount
    else
        redis.call('HSET', key, field(rate, start), cmsgpack.pack(last, amount, next))
    end
    if start == rate[HEAD] then
        rate[HEAD_LAST] = last
    end
end

local function width(rate)
    return ceil(rate[SPAN] / 2048)
end

-- Slices that someone has deleted: what is left is the newest.
local function mend(rate)
    rate[HEAD], rate[HEAD_LAST], rate[USED] = rate[TAIL], rate[TAIL_LAST], rate[TAIL_AMOUNT]
end

local function expire(rate)
    while rate[HEAD] >= 0 and rate[HEAD_LAST] + rate[SPAN] <= now do
        local start = rate[HEAD]
        local _, amount, next = slice(rate, start)
        if not amount then
            mend(rate)
        else
            rate[USED] = max(0, rate[USED] - amount)
            if start == rate[TAIL] then
                rate[HEAD], rate[TAIL], rate[TAIL_AMOUNT], rate[USED] = -1, -1, 0, 0
            else
                redis.call('HDEL', key, field(rate, start))
                rate[HEAD] = next
                local last = slice(rate, next)
                if last then
                    rate[HEAD_LAST] = last
                else
                    mend(rate)
                end
            end
        end
    end
end

local function count(rate, amount, at)
    if amount <= 0 or rate[SPAN] == 0 then
        return
    end
    rate[USED] = rate[USED] + amount
    local tail = rate[TAIL]
    if tail >= 0 and at < tail + width(rate) then
        rate[TAIL_LAST] = max(rate[TAIL_LAST], at)
        rate[TAIL_AMOUNT] = rate[TAIL_AMOUNT] + amount
        if tail == rate[HEAD] then
            rate[HEAD_LAST] = rate[TAIL_LAST]
        end
        return
    end
    local start = floor(at / width(rate)) * width(rate)
    rate[TAIL] = start
    if tail >= 0 then
        keep(rate, tail, rate[TAIL_LAST], rate[TAIL_AMOUNT], start)
    else
        rate[HEAD], rate[HEAD_LAST] = start, at
    end
    rate[TAIL_LAST], rate[TAIL_AMOUNT] = at, amount
end

-- Takes what was counted at `at` back: from its slice and those after it, or from the oldest, which rounds to the safe
-- side. What has left the window is not given back.
local function uncount(rate, amount, at)
    if rate[SPAN] == 0 or rate[HEAD] < 0 or at + rate[SPAN] <= now then
        return
    end
    local start = floor(at / width(rate)) * width(rate)
    if start < rate[HEAD] then
        return
    end
    local last, kept, next = slice(rate, start)
    if not kept then
        start = rate[HEAD]
        last, kept, next = slice(rate, start)
    end
    while kept and amount > 0 do
        local back = min(amount, kept)
        keep(rate, start, last, kept - back, next)
        rate[USED] = max(0, rate[USED] - back)
        amount = amount - back
        if next < 0 then
            return
        end
        start = next
        last, kept, next = slice(rate, start)
    end
end

-- When the oldest slices that hold so much have left. A batch asks for more and more, so that it walks once.
local walks = {}
local function freed(rate, amount)
    local walk = walks[rate]
    if not walk then
        walk = { 0, rate[HEAD], rate[HEAD_LAST] }
        walks[rate] = walk
    end
    while walk[1] < amount and walk[2] >= 0 do
        local last, kept, next = slice(rate, walk[2])
        if not kept then
            walk[2] = -1
        else
            walk[1], walk[2], walk[3] = walk[1] + kept, next, last
        end
    end
    return walk[3] + rate[SPAN]
end

-- Puts what left some time ago into its place among the slices.
local function restore(rate, amount, at)
    if rate[SPAN] == 0 or at + rate[SPAN] <= now then
        return
    end
    local tail = rate[TAIL]
    if tail < 0 or at >= tail then
        return count(rate, amount, at)
    end
    local start = floor(at / width(rate)) * width(rate)
    rate[USED] = rate[USED] + amount
    if start < rate[HEAD] then
        local before = rate[HEAD]
        rate[HEAD], rate[HEAD_LAST] = start, at
        return keep(rate, start, at, amount, before)
    end
    local here = rate[HEAD]
    local last, kept, next = slice(rate, here)
    while kept and next >= 0 and next <= start do
        here = next
        last, kept, next = slice(rate, here)
    end
    if not kept then
        return mend(rate)
    end
    if here == start or next < 0 then
        return keep(rate, here, max(last, at), kept + amount, next)
    end
    keep(rate, here, last, kept, start)
    keep(rate, start, at, amount, next)
end

-- Limits. -----------------------------------------------------------------------------------------------------------

local function is_like(rate, dimension, period)
    return rate[DIMENSION] == dimension and rate[PERIOD] == period
end

-- What was spent stays spent: a rate goes on where it is named again, or else another of its period, or else any other of its
-- dimension. One that takes the place of none begins full, or empty where others were here before the state was lost.
--
-- Limits that were given replace those that there are, dimension by dimension. What a process has found out does so only
-- if it knew those: of two that find out something at the same time one is told, and looks again.
local function set_limits()
    local owned, found, told = limits[2], limits[3], limits[4]
    local next, dropped, changed, replaced = {}, {}, created == 1, {}
    for dimension = 1, 4 do
        local place, unknown = 2 ^ (dimension - 1), true
        for _, rate in ipairs(rates) do
            unknown = unknown and rate[DIMENSION] ~= dimension
        end
        local is_owned = band(owned, place) > 0
        local is_found = band(found, place) > 0 and (unknown or edition == state[EDITION])
        if created == 1 or is_owned or is_found then
            replaced[dimension] = true
            for mask, wanted in pairs({ [OWNED] = owned, [TOLD] = told }) do
                local is, was = band(wanted, place), band(state[mask], place)
                changed = changed or is ~= was
                state[mask] = state[mask] + is - was
            end
        end
    end
    for _, rate in ipairs(rates) do
        if replaced[rate[DIMENSION]] then
            dropped[#dropped + 1] = rate
        else
            next[#next + 1] = rate
        end
    end
    local takes = {}
    for closeness = 1, 3 do
        for i = 5, #limits, 5 do
            local dimension, amount, period, burst, span = limits[i], limits[i + 1], limits[i + 2], limits[i + 3],
                limits[i + 4]
            for place, rate in ipairs(takes[i] and {} or dropped) do
                local same = is_like(rate, dimension, period)
                local equal = same and rate[GIVEN_AMOUNT] == amount and rate[GIVEN_BURST] == burst and rate[SPAN] == span
                if closeness == 1 and equal or closeness == 2 and same or closeness == 3 and rate[DIMENSION] == dimension then
                    takes[i] = table.remove(dropped, place)
                    break
                end
            end
        end
    end
    for i = 5, #limits, 5 do
        local dimension, amount, period, burst, span = limits[i], limits[i + 1], limits[i + 2], limits[i + 3],
            limits[i + 4]
        local rate = takes[i]
        if replaced[dimension] and not rate then
            local level = burst
            if created == 1 and seen == 1 then
                level = 0
            end
            changed = true
            state[NUMBERS] = state[NUMBERS] + 1
            rate = { dimension, amount, period, burst, span, 1000, 0, level, now, 0, 0, -1, 0, -1, 0, 0, amount, burst,
                state[NUMBERS] }
        elseif rate then
            local others = rate[GIVEN_AMOUNT] ~= amount or rate[GIVEN_BURST] ~= burst
            if others or rate[SPAN] ~= span or rate[PERIOD] ~= period then
                changed = true
                put(rate, burst - (rate[BURST] - level(rate, flow(rate))))
                rate[AMOUNT], rate[BURST], rate[SPAN], rate[PERIOD] = amount, burst, span, period
                rate[GIVEN_AMOUNT], rate[GIVEN_BURST] = amount, burst
            end
        end
        next[#next + 1] = rate
    end
    for _, rate in ipairs(dropped) do
        changed = true
        local start = rate[HEAD]
        while start >= 0 and start ~= rate[TAIL] do
            local _, kept, following = slice(rate, start)
            redis.call('HDEL', key, field(rate, start))
            start = kept and following or -1
        end
    end
    if (created == 1 or band(owned, SLOTS) > 0) and state[CONCURRENCY] ~= limits[1] then
        state[CONCURRENCY], changed = limits[1], true
    end
    state[RATES], rates = next, next
    if changed then
        state[EDITION] = max(now, state[EDITION] + 1)
    end
end

-- Whether what this message says of rates is of those that there are.
local in_step = created == 1 or edition == state[EDITION]
if created == 1 or fresh_limits == 1 then
    set_limits()
    in_step = in_step or band(limits[2], 15) == 15
end

-- Processes. --------------------------------------------------------------------------------------------------------

local line = state[LINE] -- of processes that wait for a slot: name, when it was told that one is free (or 0)

local function leave_line(name)
    for i, entry in ipairs(line) do
        if entry[1] == name then
            table.remove(line, i)
            return entry
        end
    end
end

-- A process: its epoch, when its lease ends, how many slots it was given and has given back.
local own = nil
local function processes()
    local names = redis.call('HGET', key, 'processes')
    return names and cmsgpack.unpack(names) or {}
end
if raw and kept[2] then
    own = cmsgpack.unpack(kept[2])
end
if not own or own[1] ~= epoch then
    if register == 0 then
        -- It was declared dead, or the state was lost: what it says of the time before no longer counts.
        redis.call('HSET', key, 'state', cmsgpack.pack(state))
        return { 1, now, state[BORN] }
    end
    if own then
        state[HELD] = max(0, state[HELD] - (own[3] - own[4]))
    else
        state[MEMBERS] = state[MEMBERS] + 1
        local names = processes()
        names[#names + 1] = process
        redis.call('HSET', key, 'processes', cmsgpack.pack(names))
    end
    own = { epoch, 0, holds, 0 }
    state[HELD] = state[HELD] + holds
end
if released > own[4] then
    state[HELD] = max(0, state[HELD] - (released - own[4]))
    own[4] = released
end
own[2] = lease_now + lease

if lease_now >= state[SWEEP_AT] then
    local held, members, next, alive = own[3] - own[4], 1, own[2], { process }
    for _, name in ipairs(processes()) do
        local kept = name ~= process and redis.call('HGET', key, 'p:' .. name)
        local other = kept and cmsgpack.unpack(kept)
        if other and other[2] <= lease_now then
            redis.call('HDEL', key, 'p:' .. name)
            leave_line(name)
        elseif other then
            held, members, next = held + other[3] - other[4], members + 1, min(next, other[2])
            alive[members] = name
        end
    end
    redis.call('HSET', key, 'processes', cmsgpack.pack(alive))
    state[HELD], state[MEMBERS], state[SWEEP_AT] = held, members, next
end

-- What happened. ----------------------------------------------------------------------------------------------------

for _, rate in ipairs(rates) do
    if rate[SPAN] > 0 then
        expire(rate)
    end
end

-- Each: dimension, period, how long ago, how much. Or, instead of a time, -1: so much is counted at the provider, whoever
-- used it.
for i = 1, #restores, 4 do
    for _, rate in ipairs(rates) do
        local concerned = is_like(rate, restores[i], restores[i + 1])
        if concerned and restores[i + 2] < 0 then
            count(rate, min(restores[i + 3], rate[AMOUNT]) - rate[USED], now)
        elseif concerned then
            restore(rate, restores[i + 3], max(0, now - restores[i + 2]))
        end
    end
end

-- Each: when it was charged, then by dimension what it used more, or less, than that.
for i = 1, #settles, 5 do
    local at = settles[i]
    for _, rate in ipairs(rates) do
        local more = settles[i + rate[DIMENSION]]
        if more > 0 then
            put(rate, level(rate, flow(rate)) - more)
            count(rate, more, now)
        elseif more < 0 and now < at + max(rate[SPAN], rate[PERIOD]) then
            put(rate, min(level(rate, flow(rate)) - more, rate[BURST]))
            uncount(rate, -more, at)
        end
    end
end

-- What left while the store was away: how long ago, and how much by dimension. It stays in the windows for as long as it would
-- have. The buckets have refilled meanwhile, by a burst at the most, and would have by more: the process's share of that is
-- not owed, so that whoever kept to it comes back at once.
if #debits > 0 then
    for _, rate in ipairs(rates) do
        local total = 0
        for i = 1, #debits, 5 do
            local amount = debits[i + rate[DIMENSION]]
            total = total + amount
            if amount > 0 then
                restore(rate, amount, max(0, now - debits[i]))
            end
        end
        local free = flow(rate) * away / state[MEMBERS]
        local refilled = created == 1 and 0 or rate[BURST] / state[MEMBERS]
        local owed = max(0, min(total, total - free + refilled))
        if owed > 0 then
            put(rate, down(level(rate, flow(rate)) - owed))
        end
    end
end

-- Each: dimension (0: all), period (0: the shortest), for how long, how much may leave at once when it is over (0: a second's
-- worth).
for i = 1, #cooldowns, 4 do
    local dimension, period, until_, requested = cooldowns[i], cooldowns[i + 1], now + cooldowns[i + 2],
        cooldowns[i + 3]
    local shortest = nil
    for _, rate in ipairs(rates) do
        if rate[DIMENSION] == dimension then
            shortest = min(shortest or rate[PERIOD], rate[PERIOD])
        end
    end
    if not shortest then
        state[COOLING] = max(state[COOLING], until_)
    else
        if period == 0 then
            period = shortest
        end
        for _, rate in ipairs(rates) do
            if rate[DIMENSION] == dimension then
                rate[COOLDOWN] = max(rate[COOLDOWN], until_)
                if abs(rate[PERIOD] - period) <= rate[PERIOD] / 50 then
                    local kept = requested > 0 and requested or max(1, floor(rate[AMOUNT] * SECOND / rate[PERIOD]))
                    rate[LEVEL] = min(level_at(rate, flow(rate), until_), kept)
                    rate[LAST] = max(rate[LAST], until_)
                end
            end
        end
    end
end

-- What the provider's answers say of a rate: its amount, its burst, its speed in thousandths.
for i = 1, #paces, 5 do
    for _, rate in ipairs(in_step and rates or {}) do
        if is_like(rate, paces[i], paces[i + 1]) then
            local amount, burst = min(paces[i + 2], rate[GIVEN_AMOUNT]), min(paces[i + 3], rate[GIVEN_BURST])
            put(rate, level(rate, flow(rate)) + (burst - rate[BURST]))
            rate[AMOUNT], rate[BURST], rate[SPEED] = amount, burst, paces[i + 4]
            rate[SPEED_UNTIL] = now + SPEED_HOLDS
        end
    end
end

-- A quota that is spent: until when, when it resets by the provider's clock, of which dimension; or that it is back.
if #spent > 0 then
    state[SPENT_UNTIL], state[SPENT_RESET], state[SPENT_DIMENSION] = spent[1] > 0 and now + spent[1] or 0, spent[2],
        spent[3]
end

-- Admissions, in order. ---------------------------------------------------------------------------------------------

local answer = { 0, now, state[BORN], created, state[MEMBERS], 0, 0, 0, 0, state[EDITION], 0 }
if edition ~= state[EDITION] then
    -- The limits, for a process that knows others: how many numbers, then those. A period is told in whole microseconds
    -- and the nanoseconds beyond.
    local told = { state[CONCURRENCY], state[OWNED], state[TOLD] }
    for _, rate in ipairs(rates) do
        local whole = floor(rate[PERIOD])
        for _, value in ipairs({ rate[DIMENSION], rate[GIVEN_AMOUNT], whole, floor((rate[PERIOD] - whole) * 1000 + 0.5),
            rate[GIVEN_BURST], rate[SPAN] }) do
            told[#told + 1] = value
        end
    end
    answer[11] = #told
    for i, value in ipairs(told) do
        answer[11 + i] = value
    end
end
local header = #answer
local flows = {}
for i, rate in ipairs(rates) do
    flows[i] = flow(rate)
end

local ahead, lapse, place = 0, -1, nil
for i, entry in ipairs(line) do
    if entry[1] == process then
        place = i
        break
    end
end
for i = (place or #line + 1) - 1, 1, -1 do
    local entry = line[i]
    if entry[2] > 0 and now >= entry[2] + GRACE then
        table.remove(line, i)
    else
        ahead = ahead + 1
        local at = (entry[2] > 0 and entry[2] or now) + GRACE
        lapse = lapse < 0 and at or min(lapse, at)
    end
end

local function say(alike, kind, value)
    local size = #answer
    if size > header and answer[size - 1] == kind and answer[size] == value then
        answer[size - 2] = answer[size - 2] + alike
    else
        answer[size + 1], answer[size + 2], answer[size + 3] = alike, kind, value
    end
end

-- How many of so many calls, whose costs are told behind `costs`, leave now, each as if it asked alone; they are charged.
local function roomy(alike, slot, costs)
    local room = alike
    if now < state[COOLING] then
        return 0
    end
    if slot and state[CONCURRENCY] > 0 then
        room = min(room, state[CONCURRENCY] - state[HELD] - ahead)
    end
    for j, rate in ipairs(rates) do
        local cost = asks[costs + rate[DIMENSION]]
        if cost > 0 then
            if cost > rate[BURST] or now < rate[COOLDOWN] or now < rate[LAST] then
                return 0
            end
            local level = level(rate, flows[j])
            local fits = floor(level / cost)
            if fits * cost > level then
                fits = fits - 1 -- the quotient was rounded up
            end
            room = min(room, fits)
            if rate[SPAN] > 0 then
                room = min(room, floor((rate[AMOUNT] - rate[USED]) / cost))
            end
        end
    end
    if room <= 0 then
        return 0
    end
    for j, rate in ipairs(rates) do
        local cost = asks[costs + rate[DIMENSION]]
        if cost > 0 then
            put(rate, level(rate, flows[j]) - room * cost)
            count(rate, room * cost, now)
        end
    end
    if slot then
        state[HELD] = state[HELD] + room
        own[3] = own[3] + room
    end
    return room
end

local blocked, took, wants = false, false, false
-- Each: how many alike, whether they take a slot, how long they are ready to wait (-1: for ever), then what they cost by
-- dimension. Who would have to wait for longer is told, and holds up nobody.
for i = 1, #asks, 7 do
    local alike, slot, patience = asks[i], asks[i + 1] == 1, asks[i + 2]
    if blocked then
        break -- they come later
    end
    -- As many as have room now, at once; the others one by one.
    local room = roomy(alike, slot, i + 2)
    if room > 0 then
        took = true
        say(room, 0, 0)
    end
    for _ = room + 1, alike do
        local at, kind, oversize, hasty = max(now, state[COOLING]), 0, 0, patience == 0
        if slot and state[CONCURRENCY] > 0 and state[HELD] + ahead >= state[CONCURRENCY] then
            kind, wants = 2, wants or patience ~= 0
            at = state[HELD] >= state[CONCURRENCY] and now - 1 or lapse
        else
            for j, rate in ipairs(rates) do
                local cost = asks[i + 2 + rate[DIMENSION]]
                if cost > 0 then
                    at = max(at, rate[COOLDOWN])
                    local short = min(cost, rate[BURST]) - level(rate, flows[j])
                    if short > 0 then
                        at = max(at, min(NEVER, max(now, rate[LAST]) + ceil(short / flows[j])))
                    end
                    if rate[SPAN] > 0 and rate[USED] + cost > rate[AMOUNT] then
                        at = max(at, freed(rate, rate[USED] + cost - rate[AMOUNT]))
                    end
                    if cost > rate[AMOUNT] then
                        -- Others have set a lower limit: no wait can satisfy this.
                        local same = kind == 9 + rate[DIMENSION]
                        oversize = same and min(oversize, rate[AMOUNT]) or kind == 0 and rate[AMOUNT] or oversize
                        kind = kind == 0 and 9 + rate[DIMENSION] or kind
                    end
                end
            end
            -- The first of a batch may reach further than the others, or large calls would starve.
            hasty = patience >= 0 and at > now + patience
            if kind == 0 and (hasty or at > now + (took and horizon or reach)) then
                kind = 1
            end
        end
        if kind == 0 then
            for j, rate in ipairs(rates) do
                local cost = asks[i + 2 + rate[DIMENSION]]
                if cost > 0 then
                    local full = rate[BURST] + flows[j] - down(flows[j] * max(0, at - max(now, rate[LAST])))
                    local rest = min(level(rate, flows[j]), full) - cost
                    put(rate, rest < 0 and down(rest) or rest) -- above 0 the difference is exact
                    count(rate, cost, at)
                end
            end
            if slot then
                state[HELD] = state[HELD] + 1
                own[3] = own[3] + 1
            end
            took = true
        elseif kind < 9 and not hasty then
            blocked = true
        end
        say(1, kind, kind < 9 and at - now or oversize)
        if blocked then
            break
        end
    end
end

-- Slots. ------------------------------------------------------------------------------------------------------------

if wants then
    -- Who got something and wants more goes to the back.
    if not place then
        line[#line + 1] = { process, 0 }
    elseif took then
        local entry = leave_line(process)
        entry[2] = 0
        line[#line + 1] = entry
    else
        for _, entry in ipairs(line) do
            if entry[1] == process then
                entry[2] = 0
            end
        end
    end
elseif place and waits == 0 then
    leave_line(process)
end

if leaving == 1 then
    state[HELD] = max(0, state[HELD] - (own[3] - own[4]))
    state[MEMBERS] = max(0, state[MEMBERS] - 1)
    local names = {}
    for _, name in ipairs(processes()) do
        if name ~= process then
            names[#names + 1] = name
        end
    end
    redis.call('HDEL', key, 'p:' .. process)
    redis.call('HSET', key, 'processes', cmsgpack.pack(names))
    leave_line(process)
end

if state[CONCURRENCY] > 0 then
    local free = state[CONCURRENCY] - state[HELD]
    for i = 1, min(free, #line) do
        local entry = line[i]
        if entry[2] == 0 then
            entry[2] = now
            redis.call('PUBLISH', key .. ':' .. entry[1], '1')
        end
    end
end

-- All of it ends by itself when nothing is owed any more and nobody is here. ------------------------------------------

local idle = 2 * lease
for j, rate in ipairs(rates) do
    local debt = (rate[BURST] - rate[LEVEL]) / flows[j]
    idle = max(idle, rate[PERIOD], rate[SPAN], min(debt, 1e14), rate[COOLDOWN] - now)
end
idle = max(idle, state[COOLING] - now, state[SPENT_UNTIL] - now) + 60 * SECOND
-- Twice as long, so that it need not be said each time.
local prolong = now + idle > state[KEPT]
if prolong then
    state[KEPT] = now + 2 * idle
end
if leaving == 1 then
    redis.call('HSET', key, 'state', cmsgpack.pack(state))
else
    redis.call('HSET', key, 'state', cmsgpack.pack(state), 'p:' .. process, cmsgpack.pack(own))
end
if prolong then
    redis.call('PEXPIRE', key, string.format('%.0f', ceil(2 * idle / 1000)))
end

answer[5] = state[MEMBERS]
answer[6] = max(0, state[COOLING] - now)
answer[7] = max(0, state[SPENT_UNTIL] - now)
answer[8] = state[SPENT_RESET]
answer[9] = state[SPENT_DIMENSION]
return answer
