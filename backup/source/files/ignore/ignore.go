// Package ignore decides which files a list of patterns leaves out, by the rules
// of gitignore(5), byte for byte as git 2.39 does: names are bytes, not text.
//
// It exists because no Go library agrees with git on escapes, bracket
// expressions, "**" and names that are not UTF-8; the tests compare it with git.
package ignore

import (
	"bytes"
	"strings"
)

// Kind is what a name belongs to.
type Kind uint8

// The kinds. A symlink is Other, also one to a directory.
const (
	Other Kind = iota
	Dir
)

// Matcher is a list of patterns, of which the last that matches decides. A nil
// Matcher leaves nothing out. It is safe for concurrent use.
type Matcher struct {
	patterns []pattern // last one first
}

type pattern struct {
	negative bool
	dirOnly  bool
	whole    bool   // matched against the whole path, not only its last component
	literal  string // what the text begins with
	glob     []token
}

// New compiles patterns, one line of a pattern file each. Comments, blank lines
// and malformed patterns match nothing. Without any pattern it returns nil.
func New(lines []string) *Matcher {
	m := &Matcher{}
	for i := len(lines) - 1; i >= 0; i-- {
		if p, ok := parse(lines[i]); ok {
			m.patterns = append(m.patterns, p)
		}
	}
	if len(m.patterns) == 0 {
		return nil
	}
	return m
}

// Lines cuts the content of a pattern file into lines.
func Lines(data []byte) []string {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	var lines []string
	for line := range bytes.SplitSeq(data, []byte("\n")) {
		lines = append(lines, string(bytes.TrimSuffix(line, []byte("\r"))))
	}
	return lines
}

// Match tells whether name in the directory dir is left out. dir is the path
// below the root of the patterns, "" for the root itself, without a slash at
// either end, and is not itself left out.
func (m *Matcher) Match(dir, name string, kind Kind) bool {
	if m == nil {
		return false
	}
	path := ""
	for i := range m.patterns {
		p := &m.patterns[i]
		if p.dirOnly && kind != Dir {
			continue
		}
		text := name
		if p.whole {
			if path == "" {
				path = join(dir, name)
			}
			text = path
		}
		if p.match(text) {
			return !p.negative
		}
	}
	return false
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

func (p *pattern) match(text string) bool {
	rest, ok := strings.CutPrefix(text, p.literal)
	return ok && match(p.glob, rest)
}

func parse(line string) (pattern, bool) {
	var p pattern
	if strings.HasPrefix(line, "#") || strings.IndexByte(line, 0) >= 0 {
		return p, false
	}
	line = trimSpaces(line)
	line, p.negative = strings.CutPrefix(line, "!")
	line, p.dirOnly = strings.CutSuffix(line, "/")
	p.whole = strings.Contains(line, "/")
	line = strings.TrimPrefix(line, "/")
	if line == "" {
		return p, false
	}
	// As in git, what follows the literal beginning is a pattern of its own: a
	// "**" right after it counts as one at the beginning.
	n := strings.IndexAny(line, `*?[\`)
	if n < 0 {
		n = len(line)
	}
	p.literal = line[:n]
	var ok bool
	p.glob, ok = compile(line[n:], p.whole)
	return p, ok
}

// trimSpaces removes spaces from the end, except one after a backslash.
func trimSpaces(s string) string {
	end := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case ' ':
			continue
		case '\\':
			i++
		}
		end = min(i+1, len(s))
	}
	return s[:end]
}
