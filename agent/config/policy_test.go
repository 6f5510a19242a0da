package config_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/policy"
)

const policies = `agent:
  jobs: 4
  metrics: "[::1]:9464"
  roles: {viewer: [adm, "1000"], operator: [backup], restorer: [helpdesk], key_admin: [security]}
keys: {k: {uri: 'file:///k'}}
vaults:
  v:
    store: 'file:///v'
    keys: [k]
    lock: {days: 3}
    limits: {upload: 20 MiB, download: 1 GiB}
    prune: {schedule: "0 12 * * *", grace: 1h, abandon: 2h, repack_below: 0, repack_most: 1 MiB}
    verify: {structure: daily, data: weekly, every: 10d, restore: monthly, scratch: /x}
items:
  a: {vault: v, stream: }
  b: {vault: v, stream: }
  c: {vault: v, stream: }
policies:
  nightly:
    items: [a, b]
    schedule: daily at 02:00
    timezone: Europe/Berlin
    jitter: 30m
    not: [08:00-18:00 mon-fri, sun]
    priority: -5
    retry: {tries: 3, first: 10s, longest: 5m}
    deadline: 6h
    hooks: {pre: {command: [/bin/pre, x], timeout: 1m}, post: {command: [/bin/post]}}
    read_limit: 100 MiB
    retention: {last: 3, hourly: 24, daily: 7, weekly: 4, monthly: 12, yearly: 3, within: 30d, tags: [keep], minimum: 2}
  asked: {items: [c]}
notify:
  hook:
    on: [failure, success]
    items: [a]
    repeat: 1h
    subject: "{{.Host}} {{.Kind}}"
    body: "{{if .Item}}{{.Item}}{{else}}{{.Subject}}{{end}}: {{.Message}}; {{.Next}} ({{.Count}} times since {{.Time.Format \"15:04\"}}, job {{.Job}}) {{json .Item}}"
    webhook: {url: "https://h/x", headers: {X-Team: storage}, token_source: "env:TOKEN", ca: /ca.pem}
  mail: {smtp: {server: "mail:587", from: a@b.example, to: [c@d.example], user: u, password_source: "file:/p"}}
  run: {command: [/bin/tell]}
  dog: {ping: {url_source: "file:/url"}}
`

func defaultPrune() config.Prune {
	below := 50
	return config.Prune{Grace: 3 * day, Abandon: 14 * day, RepackBelow: &below, RepackMost: 10 << 30}
}

func defaultVerify() config.Verify {
	return config.Verify{Every: 30 * day, Scratch: "/s/scratch"}
}

func TestPolicies(t *testing.T) {
	got, err := config.Parse("x", []byte(policies))
	if err != nil {
		t.Fatal(err)
	}
	want := config.Policy{
		Items: []string{"a", "b"}, Schedule: "daily at 02:00", Timezone: "Europe/Berlin", Jitter: day / 48, Not: []string{"08:00-18:00 mon-fri", "sun"},
		Priority: -5, Retry: config.Retry{Tries: 3, First: config.Duration(10 * time.Second), Longest: config.Duration(5 * time.Minute)}, Deadline: day / 4,
		Hooks: config.Hooks{Pre: &config.Hook{Command: []string{"/bin/pre", "x"}, Timeout: config.Duration(time.Minute)},
			Post: &config.Hook{Command: []string{"/bin/post"}, Timeout: config.Duration(10 * time.Minute)}},
		ReadLimit: 100 << 20,
		Retention: &config.Retention{Last: 3, Hourly: 24, Daily: 7, Weekly: 4, Monthly: 12, Yearly: 3, Within: 30 * day, Tags: []string{"keep"}, Minimum: 2},
	}
	if p := got.Policies["nightly"]; !reflect.DeepEqual(p, want) {
		t.Errorf("got  %+v\nwant %+v", p, want)
	}
	asked := config.Policy{Items: []string{"c"}, Retry: config.Retry{Tries: 5, First: config.Duration(time.Minute), Longest: day / 24}}
	if p := got.Policies["asked"]; !reflect.DeepEqual(p, asked) {
		t.Errorf("got  %+v\nwant %+v", p, asked)
	}
	v, never := got.Vaults["v"], 0
	if want := (config.Prune{Schedule: "0 12 * * *", Grace: day / 24, Abandon: day / 12, RepackBelow: &never, RepackMost: 1 << 20}); !reflect.DeepEqual(v.Prune, want) {
		t.Errorf("prune: got %+v, want %+v", v.Prune, want)
	}
	if want := (config.Verify{Structure: "daily", Data: "weekly", Every: 10 * day, Restore: "monthly", Scratch: "/x"}); v.Verify != want {
		t.Errorf("verify: got %+v, want %+v", v.Verify, want)
	}
	if *v.Lock != (config.Lock{Days: 3, Mode: "governance"}) || v.Limits != (config.Limits{Upload: 20 << 20, Download: 1 << 30}) {
		t.Errorf("lock %+v, limits %+v", v.Lock, v.Limits)
	}
	if n := got.Notify["mail"]; !reflect.DeepEqual(n.On, []string{"failure", "alarm", "recovery"}) || n.Repeat != day {
		t.Errorf("defaults of a notification: %+v", n)
	}
	if n := got.Notify["dog"]; n.On != nil || n.Repeat != 0 {
		t.Errorf("a ping: %+v", n)
	}
	if got.Agent.Jobs != 4 || got.Agent.Metrics != "[::1]:9464" || got.Agent.Roles.Viewer[1] != "1000" {
		t.Errorf("agent: %+v", got.Agent)
	}
}

// TestPlan: what policies say comes out as what decides.
func TestPlan(t *testing.T) {
	got, err := config.Parse("x", []byte(policies))
	if err != nil {
		t.Fatal(err)
	}
	name, p := got.PolicyOf("b")
	if name != "nightly" {
		t.Fatalf("b is in %q", name)
	}
	if want := (policy.Attempts{Tries: 3, First: 10 * time.Second, Longest: 5 * time.Minute, Deadline: 6 * time.Hour}); p.Tries() != want {
		t.Errorf("tries: %+v", p.Tries())
	}
	r, ok := p.Keeps()
	if !ok || r.Zone.String() != "Europe/Berlin" {
		t.Errorf("it keeps %+v, %v", r, ok)
	}
	r.Zone = nil
	if want := (policy.Retention{Last: 3, Hourly: 24, Daily: 7, Weekly: 4, Monthly: 12, Yearly: 3, Within: 30 * 24 * time.Hour, Tags: []string{"keep"}, Minimum: 2}); !reflect.DeepEqual(r, want) {
		t.Errorf("it keeps %+v", r)
	}
	_, asked := got.PolicyOf("c")
	if _, ok := asked.Keeps(); ok {
		t.Error("a policy without a retention lets points go")
	}
	if name, _ := got.PolicyOf("nothing"); name != "" {
		t.Errorf("an item that there is not is in %q", name)
	}
}

// TestPolicyProblems pins what an operator reads about each mistake with policies.
func TestPolicyProblems(t *testing.T) {
	base := "keys: {k: {uri: 'file:///k'}}\nvaults: {v: {store: 'file:///v', keys: [k]}}\nitems: {a: {vault: v, stream: }, b: {vault: v, stream: }}\npolicies:\n"
	one := func(fields string) string { return base + "  p: {items: [a], " + fields + "}\n" }
	const keep = "say what is kept (last, hourly, daily, weekly, monthly, yearly, within, tags); without retention everything is"
	tests := map[string]struct{ text, want string }{
		"items": {
			base + "  p: {items: [a, a, c]}\n  q: {items: [a]}\n  r: {}\n",
			`f:5:18: policies.p.items[1]: item a is named twice; name it once
f:5:21: policies.p.items[2]: there is no item "c"; did you mean a?
f:6:15: policies.q.items[0]: item a is in policy p already, and a point can be kept by one policy alone; keep it in one of them
f:7:3: policies.r.items: it has no items; name the items that it is for, from items`,
		},
		"schedule": {
			one("schedule: daily at 25:00"),
			`f:5:29: policies.p.schedule: "daily at 25:00", column 10: "25:00" is not a time of day; write a time from 00:00 to 23:59`,
		},
		"empty schedule": {
			one("schedule: ''"),
			`f:5:29: policies.p.schedule: "", column 1: it is empty; write "daily at 02:00" or a cron expression`,
		},
		"windows": {
			one("schedule: hourly, not: [mon-sun, '08:00']"),
			`f:5:37: policies.p.not: the windows cover the whole week, so that nothing ever runs; leave some time between them
f:5:52: policies.p.not[1]: "08:00", column 1: "08:00" is not a time from and to; write "08:00-18:00"`,
		},
		"zone": {
			one("schedule: hourly, timezone: Europe/Berlni, jitter: 2d"),
			`f:5:47: policies.p.timezone: there is no time zone "Europe/Berlni"; use a name such as "Europe/Berlin", or UTC
f:5:70: policies.p.jitter: it is longer than a day; use 0 to 24h`,
		},
		"somebody's zone": {
			one("timezone: Local"),
			`f:5:29: policies.p.timezone: there is no time zone "Local"; use a name such as "Europe/Berlin", or UTC`,
		},
		"without a schedule": {
			one("jitter: 5m, not: [sun]"),
			`f:5:27: policies.p.jitter: it is a schedule's, and there is none; add schedule, or leave it out
f:5:31: policies.p.not: it is a schedule's, and there is none; add schedule, or leave it out`,
		},
		"numbers": {
			one("priority: 101, retry: {tries: 0, first: 1h, longest: 1m}, read_limit: 20"),
			`f:5:29: policies.p.priority: a priority of 101 makes no sense; use -100 to 100
f:5:49: policies.p.retry.tries: 0 tries make no sense; use 1 to 100; 1 is no retry
f:5:72: policies.p.retry.longest: it is shorter than first; make it as long, or leave it out
f:5:89: policies.p.read_limit: a limit of 20 bytes a second makes no sense; use "16 KiB" or more, or leave it out`,
		},
		"hooks": {
			one("hooks: {pre: {timeout: 0}, post: {command: [stop]}}"),
			`f:5:27: policies.p.hooks.pre.command: it has no command; write [/path/of/program, argument, ...]
f:5:42: policies.p.hooks.pre.timeout: such a timeout makes no sense; use 1s to 24h
f:5:63: policies.p.hooks.post.command[0]: "stop" is not an absolute path; write it from the root; for a pipeline: [/bin/sh, -c, ...]`,
		},
		"keeps nothing": {
			one("retention: {minimum: 3}"),
			`f:5:19: policies.p.retention: it has no rule, so that nothing would be kept; ` + keep,
		},
		"empty retention": {
			one("retention: {}"),
			`f:5:19: policies.p.retention: it has no rule, so that nothing would be kept; ` + keep,
		},
		"a rule that is refused": {
			one("retention: {within: 30}"),
			`f:5:39: policies.p.retention.within: "30" is not a length of time; write it like "90s", "12h" or "3d"`,
		},
		"retention": {
			one("retention: {last: -1, daily: 2000000, minimum: 0, tags: ['', x, x]}"),
			`f:5:37: policies.p.retention.last: -1 points make no sense; write how many to keep, up to 1000000, or leave it out
f:5:48: policies.p.retention.daily: 2000000 points make no sense; write how many to keep, up to 1000000, or leave it out
f:5:66: policies.p.retention.minimum: a minimum of 0 points makes no sense; use 1 to 1000000
f:5:76: policies.p.retention.tags[0]: it is an empty tag; leave it out
f:5:83: policies.p.retention.tags[2]: tag x is named twice; name it once`,
		},
	}
	for name, tt := range tests {
		wantProblems(t, name, tt.text, tt.want)
	}
}

// TestServiceProblems pins what an operator reads about each mistake with what the
// service does by itself.
func TestServiceProblems(t *testing.T) {
	vault := func(fields string) string {
		return "keys: {k: {uri: 'file:///k'}}\nvaults:\n  v: {store: 'file:///v', keys: [k], " + fields + "}\n"
	}
	tests := map[string]struct{ text, want string }{
		"agent": {
			"agent: {jobs: 0, metrics: '0.0.0.0:9464', roles: {viewer: ['', a, a], operator: ['x:y']}}\n",
			`f:1:15: agent.jobs: 0 jobs at once make no sense; use 1 to 64
f:1:27: agent.metrics: 0.0.0.0 is not of this machine alone, and metrics tell everybody what is here; use 127.0.0.1 or [::1], and have a scraper or proxy on this machine ask it
f:1:60: agent.roles.viewer[0]: "" cannot be the name of a group; write its name or number
f:1:67: agent.roles.viewer[2]: group a is named twice; name it once
f:1:82: agent.roles.operator[0]: "x:y" cannot be the name of a group; write its name or number`,
		},
		"metrics without a port": {
			"agent: {metrics: localhost}\n",
			`f:1:18: agent.metrics: "localhost" is not an address; write 127.0.0.1:9464, or the absolute path of a socket`,
		},
		"metrics of everybody": {
			"agent: {metrics: ':9464'}\n",
			`f:1:18: agent.metrics: ":9464" is not the address of a server; write HOST:PORT`,
		},
		"lock of a folder": {
			vault("lock: {days: 3, mode: compliance}"),
			`f:3:60: vaults.v.lock.mode: a folder cannot be locked so that nobody can lift it: root always can; use governance, or an S3 bucket with object lock`,
		},
		"limits": {
			vault("limits: {upload: 0, download: 1 KiB}"),
			`f:3:55: vaults.v.limits.upload: a limit of 0 bytes a second makes no sense; use "16 KiB" or more, or leave it out
f:3:68: vaults.v.limits.download: a limit of 1024 bytes a second makes no sense; use "16 KiB" or more, or leave it out`,
		},
		"prune": {
			vault("prune: {schedule: sometimes, grace: 5m, abandon: 1h, repack_below: 95, repack_most: 1}"),
			`f:3:56: vaults.v.prune.schedule: "sometimes", column 1: "sometimes" is not the beginning of a schedule; write "daily at 02:00", "weekdays at 22:30", "every 4 hours" or a cron expression
f:3:74: vaults.v.prune.grace: such a grace time makes no sense: a restore that has begun must be able to end; use 1h or more
f:3:105: vaults.v.prune.repack_below: 95 makes no sense; use 0 (never) to 90, in percent
f:3:122: vaults.v.prune.repack_most: 1 bytes make no sense; use "1 MiB" or more; to never rewrite a pack: repack_below: 0`,
		},
		"abandon": {
			vault("prune: {abandon: 1h}"),
			`f:3:55: vaults.v.prune.abandon: it is shorter than grace, or longer than a hundred years; use as long as grace (3d) or more`,
		},
		"verify": {
			vault("verify: {structure: daily at noon, every: 1h, scratch: x}"),
			`f:3:58: vaults.v.verify.structure: "daily at noon", column 10: "noon" is not a time of day; write 12:00
f:3:80: vaults.v.verify.every: such a time makes no sense; use 1d or more
f:3:93: vaults.v.verify.scratch: "x" is not an absolute path; write it from the root`,
		},
		"verify without a schedule": {
			vault("verify: {every: 10d, scratch: /x}"),
			`f:3:54: vaults.v.verify.every: it is about data, which has no schedule; add data, or leave every out
f:3:68: vaults.v.verify.scratch: it is for restore, which has no schedule; add restore, or leave scratch out`,
		},
	}
	for name, tt := range tests {
		wantProblems(t, name, tt.text, tt.want)
	}
}

// TestNotifyProblems pins what an operator reads about each mistake with who is told.
func TestNotifyProblems(t *testing.T) {
	one := func(fields string) string { return "notify:\n  n: {" + fields + "}\n" }
	const words = "use {{.Kind}} {{.Subject}} {{.Message}} {{.Next}} {{.Host}} {{.Time}} {{.Item}} {{.Job}} {{.Count}}"
	const token = "say where it is: file:/path (mode 0600) or env:NAME"
	tests := map[string]struct{ text, want string }{
		"no way": {
			one("on: [alarm]"),
			`f:2:3: notify.n: it has no way to tell; add webhook, smtp, command or ping`,
		},
		"two ways": {
			one("command: [/x], webhook: {url: 'https://h/'}"),
			`f:2:7: notify.n.command: a notification has one way, and this one has webhook too; make two of it`,
		},
		"what and whom": {
			one("command: [x], on: [alarms], items: [a], repeat: 1s"),
			`f:2:17: notify.n.command[0]: "x" is not an absolute path; write it from the root; for a pipeline: [/bin/sh, -c, ...]
f:2:26: notify.n.on[0]: "alarms" is not known; use failure, alarm, recovery or success
f:2:43: notify.n.items[0]: there is no item "a"; add it to items
f:2:55: notify.n.repeat: such a time makes no sense; use 1m or more`,
		},
		"webhook": {
			one("webhook: {url: 'https://u:hunter2@h/', headers: {Authorization: hunter2, 'a b': c}, token_source: hunter2, ca: ca.pem}"),
			`f:2:22: notify.n.webhook.url: credentials may not be in the configuration; take out what is before the @
f:2:71: notify.n.webhook.headers.Authorization: a secret may not be in the configuration; say where the token is: token_source: file:/path (mode 0600) or env:NAME
f:2:87: notify.n.webhook.headers.a b: "a b" cannot be the name of a header; use letters, digits and -
f:2:105: notify.n.webhook.token_source: the secret itself may not be in the configuration; ` + token + `
f:2:118: notify.n.webhook.ca: "ca.pem" is not an absolute path; write it from the root`,
		},
		"a token in the clear": {
			one("webhook: {url: 'http://h/x', token_source: 'env:T'}"),
			`f:2:22: notify.n.webhook.url: a token would go over the network for everybody to read; use https://`,
		},
		"two addresses": {
			one("ping: {url: 'https://h/', url_source: 'env:U'}"),
			`f:2:45: notify.n.ping.url_source: it has url too; leave one of them out`,
		},
		"ping": {
			one("ping: {}, on: [failure], repeat: 1h, body: x"),
			`f:2:7: notify.n.ping.url: it is missing; write url: "https://...", or url_source: file:/path if it is a secret
f:2:17: notify.n.on: a ping has none: it is sent for every backup of its items; leave it out
f:2:40: notify.n.repeat: a ping has none: it is sent for every backup of its items; leave it out
f:2:50: notify.n.body: a ping has none: it is sent for every backup of its items; leave it out`,
		},
		"smtp": {
			one("smtp: {server: mail, from: 'a b', to: [x], user: u}"),
			`f:2:7: notify.n.smtp.password_source: it is missing, and there is a user; ` + token + `
f:2:22: notify.n.smtp.server: "mail" is not the address of a server; write HOST:PORT
f:2:34: notify.n.smtp.from: "a b" is not a mail address; write it like "backup@example.com"
f:2:46: notify.n.smtp.to[0]: "x" is not a mail address; write it like "backup@example.com"`,
		},
		"smtp, empty": {
			one("smtp: {password_source: hunter2}"),
			`f:2:7: notify.n.smtp.server: it is missing; write it as HOST:PORT, such as mail.example:587
f:2:7: notify.n.smtp.from: it is missing; say whom the mail is from
f:2:7: notify.n.smtp.to: it has no recipients; name those who get the mail
f:2:7: notify.n.smtp.user: it is missing; name the user whose password it is
f:2:31: notify.n.smtp.password_source: the secret itself may not be in the configuration; ` + token,
		},
		"templates": {
			one("command: [/x], subject: '{{.Hots}}', body: '{{range 9999999999}}{{end}}'"),
			`f:2:31: notify.n.subject: template: 1:2: executing "text" at <.Hots>: can't evaluate field Hots in type message.Notice; ` + words + `
f:2:50: notify.n.body: template: range, define, block and template have no use in one; ` + words,
		},
	}
	for name, tt := range tests {
		wantProblems(t, name, tt.text, tt.want)
	}
	for _, endless := range []string{`{{define "a"}}{{template "a"}}{{end}}{{template "a"}}`, `{{if true}}{{range 9999999999}}{{end}}{{end}}`, `{{with 1}}{{else}}{{range 9}}x{{end}}{{end}}`} {
		if _, err := config.Parse("f", []byte(one("command: [/x], body: '"+endless+"'"))); err == nil || !strings.Contains(err.Error(), "have no use in one") {
			t.Errorf("%s: %v", endless, err)
		}
	}
}
