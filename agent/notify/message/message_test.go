package message_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/notify/message"
)

// TestRender shows what each template makes of a notice.
func TestRender(t *testing.T) {
	notice := message.Notice{Kind: message.Failure, Subject: "backup of etc failed", Message: `store says "no"`, Next: "look at it",
		Host: "web1", Time: time.Date(2026, 11, 22, 9, 0, 3, 0, time.UTC), Item: "etc", Job: 118, Count: 3}
	for _, test := range []struct{ template, want string }{
		{message.DefaultSubject, "[coffer web1] backup of etc failed"},
		{message.DefaultBody, "backup of etc failed: store says \"no\"\n\nNext: look at it\n\nHost web1, 2026-11-22 09:00:03 UTC, job 118, 3 times so far\n"},
		{`{{.Kind}} {{upper .Item}} {{lower .Subject}}`, "failure ETC backup of etc failed"},
		{`{"text": {{json .Message}}}`, `{"text": "store says \"no\""}`},
		{`{{if eq .Kind "alarm"}}no{{else}}yes{{end}}`, "yes"},
	} {
		parsed, err := message.Parse(test.template)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parsed.Render(notice)
		if err != nil || got != test.want {
			t.Errorf("%s: %q, %v", test.template, got, err)
		}
	}
	parsed, err := message.Parse(message.DefaultBody)
	if err != nil {
		t.Fatal(err)
	}
	got, err := parsed.Render(message.Notice{Subject: "vault site", Message: "all keys open", Host: "web1", Time: notice.Time, Count: 1})
	if want := "vault site: all keys open\n\nHost web1, 2026-11-22 09:00:03 UTC\n"; err != nil || got != want {
		t.Errorf("%q, %v", got, err)
	}
}

// TestCheck shows that what is wrong with a template is told before it is needed.
func TestCheck(t *testing.T) {
	for _, test := range []struct{ template, fault string }{
		{`{{.Subject`, "unclosed action"},
		{`{{.Secret}}`, "can't evaluate field Secret"},
		{`{{with .Next}}{{.Nothing}}{{end}}`, "can't evaluate field Nothing"},
		{`{{exec "id"}}`, `function "exec" not defined`},
		{`{{env "HOME"}}`, `function "env" not defined`},
		{`{{template "other"}}`, "range, define"},
		{`{{range 100000}}0123456789{{end}}`, "range, define"},
		{`{{if .Next}}{{else}}{{with .Item}}{{range 5}}{{end}}{{end}}{{end}}`, "range, define"},
		{`{{define "a"}}{{template "a"}}{{end}}`, "range, define"},
		{`{{block "a" .}}{{end}}`, "range, define"},
		{`{{printf "%100000d" .Job}}`, "longer than"},
		{strings.Repeat("x", 20<<10), "are the most"},
	} {
		if err := message.Check(test.template); err == nil || !strings.Contains(err.Error(), test.fault) {
			t.Errorf("%.60s: %v, want %q", test.template, err, test.fault)
		}
	}
}

// FuzzCheck: no template brings the agent down, and what passes the check renders.
func FuzzCheck(f *testing.F) {
	for _, seed := range []string{message.DefaultBody, message.DefaultSubject, `{{json .}}`, `{{range .Subject}}{{.}}{{end}}`, `{{define "a"}}{{end}}{{template "a" .}}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if err := message.Check(text); err != nil && err.Error() == "" {
			t.Error("an error without words")
		}
	})
}

// TestJSON: a notice is what a webhook posts.
func TestJSON(t *testing.T) {
	text, err := json.Marshal(message.Notice{Kind: message.Alarm, Subject: "vault site", Message: "m", Host: "h", Count: 1})
	if want := `{"kind":"alarm","subject":"vault site","message":"m","host":"h","time":"0001-01-01T00:00:00Z","count":1}`; err != nil || string(text) != want {
		t.Errorf("%s, %v", text, err)
	}
}
