package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// maxFile is the size of the largest file that is read, in bytes.
const maxFile = 4 << 20

// maxDepth is how deep brackets may nest: more than the fields do.
const maxDepth = 64

// Load reads the file at path. A file that is wrong is an *Error.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, data)
}

// Parse reads the text of a file, which is called name in messages. A text that is
// wrong is an *Error. Defaults are filled in.
func Parse(name string, text []byte) (*Config, error) {
	p := &problems{at: map[string]pos{}, bad: map[string]bool{}}
	cfg := &Config{Name: name}
	if body := document(p, text); body != nil {
		d := &decoder{problems: p, anchors: map[string]ast.Node{}}
		d.document(body, cfg)
	}
	check(p, cfg)
	if err := p.err(name); err != nil {
		return nil, err
	}
	cfg.defaults(p)
	return cfg, nil
}

// document returns the content of the one document of text, or nil if it has none
// or is not YAML.
func document(p *problems, text []byte) ast.Node {
	if len(text) > maxFile {
		p.addAt(pos{}, "", "", "the file is larger than %d bytes", maxFile)
		return nil
	}
	if where, deep := tooDeep(text); deep {
		p.addAt(where, "", "", "brackets nest deeper than %d", maxDepth)
		return nil
	}
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		where, message := pos{}, err.Error()
		var ye yaml.Error
		if errors.As(err, &ye) {
			message = ye.GetMessage()
			if t := ye.GetToken(); t != nil && t.Position != nil {
				where = pos{t.Position.Line, t.Position.Column}
			}
		}
		p.addAt(where, "", "put it right first; what comes after it was not read", "not YAML: %s", message)
		return nil
	}
	var body ast.Node
	for _, doc := range file.Docs {
		if doc == nil || doc.Body == nil {
			continue
		}
		if _, comment := doc.Body.(*ast.CommentGroupNode); comment {
			continue
		}
		if body != nil {
			p.addAt(place(doc.Body), "", "keep one, without ---", "there is a second document in the file")
			return nil
		}
		body = doc.Body
	}
	return body
}

// tooDeep tells where flow brackets nest beyond all reason, which the parser would
// follow by recursion. Brackets in strings count too; no honest file has so many.
func tooDeep(text []byte) (pos, bool) {
	depth, at := 0, pos{1, 0}
	for _, c := range text {
		at.column++
		switch c {
		case '\n':
			at = pos{at.line + 1, 0}
		case '[', '{':
			if depth++; depth > maxDepth {
				return at, true
			}
		case ']', '}':
			depth = max(depth-1, 0)
		}
	}
	return pos{}, false
}

// defaults fills in what the file may leave out.
func (c *Config) defaults(p *problems) {
	if c.Agent.State == "" {
		c.Agent.State = "/var/lib/coffer"
		if runtime.GOOS == "windows" {
			c.Agent.State = os.Getenv("ProgramData") + `\coffer`
		}
	}
	c.Agent.Log.Level = or(c.Agent.Log.Level, "info")
	c.Agent.Log.Format = or(c.Agent.Log.Format, "text")
	c.Agent.Jobs = cmp.Or(c.Agent.Jobs, 2)
	c.Custody.defaults(p)
	if c.Audit.MaxSize == 0 {
		c.Audit.MaxSize = 16 << 20
	}
	for name, k := range c.Keys {
		k.defaults()
		c.Keys[name] = k
	}
	for name, v := range c.Vaults {
		v.defaults(c.Agent.State)
		c.Vaults[name] = v
	}
	for name, pol := range c.Policies {
		pol.defaults()
		c.Policies[name] = pol
	}
	for name, n := range c.Notify {
		n.defaults()
		c.Notify[name] = n
	}
	c.own()
}

func (c *Custody) defaults(p *problems) {
	if !p.given("custody.grace") { // "0" is a grace time too
		c.Grace = Duration(12 * time.Hour)
	}
	if len(c.Sizes) == 0 {
		c.Sizes = sizes()
	}
	r := &c.Rules
	r.CustomerManaged = or(r.CustomerManaged, EffectDisabled)
	r.Hardware = or(r.Hardware, EffectDisabled)
	r.PurgeProtection = or(r.PurgeProtection, EffectDeny)
	r.Escrow = or(r.Escrow, EffectAudit)
}

func (k *Key) defaults() {
	if !k.keyVault() {
		return
	}
	if k.Credential == nil {
		k.Credential = new(Credential)
	}
	c := k.Credential
	c.Kind = or(c.Kind, KindArc)
	if c.Kind != KindArc {
		c.Authority = or(c.Authority, "https://login.microsoftonline.com/")
	}
}

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}
