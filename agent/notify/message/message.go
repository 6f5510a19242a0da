// Package message is what people are told, and the templates that it is told with.
//
// A template is one of text/template over a Notice, without loops and templates in it,
// and with no other functions than those of text/template, json, upper and lower. What
// it can say is in a notice, and so never a secret.
package message

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/template"
	"text/template/parse"
	"time"
)

// Kind is what a notice is about.
type Kind string

// The kinds.
const (
	Failure  Kind = "failure"  // a job failed for good
	Alarm    Kind = "alarm"    // something else is wrong
	Recovery Kind = "recovery" // and again is well
	Success  Kind = "success"  // a job is done
)

// Kinds returns all of them.
func Kinds() []Kind { return []Kind{Failure, Alarm, Recovery, Success} }

// Notice is what is told.
type Notice struct {
	Kind    Kind      `json:"kind"`
	Subject string    `json:"subject"`        // "backup of etc failed", "vault site"
	Message string    `json:"message"`        // what, and why
	Next    string    `json:"next,omitempty"` // what to do about it
	Host    string    `json:"host"`
	Time    time.Time `json:"time"`
	Item    string    `json:"item,omitempty"`
	Job     int64     `json:"job,omitempty"`
	Count   int       `json:"count"` // how often it happened since it was well
}

// The templates that are used unless said otherwise.
const (
	DefaultSubject = `[coffer {{.Host}}] {{.Subject}}`
	DefaultBody    = `{{.Subject}}: {{.Message}}
{{with .Next}}
Next: {{.}}
{{end}}
Host {{.Host}}, {{.Time.Format "2006-01-02 15:04:05 MST"}}{{with .Job}}, job {{.}}{{end}}{{if gt .Count 1}}, {{.Count}} times so far{{end}}
`
)

// Bounds of a template and of what comes of it.
const (
	maxTemplate = 16 << 10
	maxText     = 64 << 10
)

// Template makes a text of a notice. It is safe for concurrent use.
type Template struct{ parsed *template.Template }

// Parse reads a template and tries it: a field or function that there is not is an
// error here, and not when something has to be told.
func Parse(text string) (*Template, error) {
	if len(text) > maxTemplate {
		return nil, fmt.Errorf("template: it has %d bytes, and %d are the most", len(text), maxTemplate)
	}
	parsed, err := template.New("text").Option("missingkey=error").Funcs(functions()).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("template: %w", trimmed(err))
	}
	if len(parsed.Templates()) > 1 || loops(parsed.Tree.Root) {
		return nil, errors.New("template: range, define, block and template have no use in one")
	}
	t := &Template{parsed}
	for _, n := range samples() {
		if _, err := t.Render(n); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// Check tells what is wrong with a template; nothing, if nil.
func Check(text string) error {
	_, err := Parse(text)
	return err
}

// Render makes the text.
func (t *Template) Render(n Notice) (string, error) {
	var out limited
	if err := t.parsed.Execute(&out, n); err != nil {
		return "", fmt.Errorf("template: %w", trimmed(err))
	}
	return out.text.String(), nil
}

// samples are notices that have every field, and none that may be missing.
func samples() []Notice {
	full := Notice{Kind: Failure, Subject: "backup of etc failed", Message: "store does not answer", Next: "see that it is up",
		Host: "web1", Time: time.Unix(0, 0).UTC(), Item: "etc", Job: 1, Count: 2}
	return []Notice{full, {Kind: Recovery}}
}

func functions() template.FuncMap {
	return template.FuncMap{
		"upper": strings.ToUpper,
		"lower": strings.ToLower,
		"json": func(v any) (string, error) {
			text, err := json.Marshal(v)
			return string(text), err
		},
	}
}

// loops tells whether a part of a template may go on for ever.
func loops(list *parse.ListNode) bool {
	if list == nil {
		return false
	}
	return slices.ContainsFunc(list.Nodes, func(n parse.Node) bool {
		switch n := n.(type) {
		case *parse.RangeNode, *parse.TemplateNode:
			return true
		case *parse.IfNode:
			return loops(n.List) || loops(n.ElseList)
		case *parse.WithNode:
			return loops(n.List) || loops(n.ElseList)
		}
		return false
	})
}

// trimmed takes the names that only this package knows out of an error.
func trimmed(err error) error {
	text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "template: "), "text:")
	return errors.New(text)
}

// errLong: the text is longer than anybody reads.
var errLong = fmt.Errorf("what it makes is longer than %d bytes", maxText)

type limited struct{ text bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if l.text.Len()+len(p) > maxText {
		return 0, errLong
	}
	return l.text.Write(p)
}
