package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// page is the help of a program or of one of its verbs.
type page struct {
	path     []string // coffer, key, rotate
	text     []string // what it is for
	sections []section
}

// section is what stands below a heading of the help.
type section struct {
	title string
	lines []string
}

// manual writes a page for a program and one for each of its verbs.
func manual(program, dir string, at time.Time) error {
	pages, err := read(program, []string{filepath.Base(program)})
	if err != nil {
		return err
	}
	for i, p := range pages {
		var beside []string
		for j, other := range pages {
			if i != j && related(p.path, other.path) {
				beside = append(beside, strings.Join(other.path, "-"))
			}
		}
		name := filepath.Join(dir, strings.Join(p.path, "-")+".1")
		if err := os.WriteFile(name, []byte(p.roff(beside, at)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// related tells whether one is right below the other.
func related(a, b []string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	return len(a)+1 == len(b) && strings.Join(a, " ") == strings.Join(b[:len(a)], " ")
}

// read asks a program for its help, and that of the verbs below it.
func read(program string, path []string) ([]page, error) {
	cmd := exec.Command(program, append(path[1:len(path):len(path)], "--help")...)
	cmd.Env = []string{"ProgramData=C:\\ProgramData"} // nothing of this machine
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("help of %s: %w", strings.Join(path, " "), err)
	}
	p := parse(path, string(out))
	pages := []page{p}
	for _, s := range p.sections {
		if s.title != "Available Commands" {
			continue
		}
		for _, line := range s.lines {
			verb, _, _ := strings.Cut(strings.TrimSpace(line), " ")
			if verb == "" || verb == "help" || verb == "completion" {
				continue
			}
			below, err := read(program, append(path[:len(path):len(path)], verb))
			if err != nil {
				return nil, err
			}
			pages = append(pages, below...)
		}
	}
	return pages, nil
}

var heading = regexp.MustCompile(`^([A-Z][A-Za-z ]+):$`)

func parse(path []string, help string) page {
	p := page{path: path}
	for line := range strings.Lines(help) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, `Use "`) {
			continue
		}
		if m := heading.FindStringSubmatch(line); m != nil {
			p.sections = append(p.sections, section{title: m[1]})
		} else if last := len(p.sections) - 1; last >= 0 {
			p.sections[last].lines = append(p.sections[last].lines, line)
		} else {
			p.text = append(p.text, line)
		}
	}
	return p
}

// roff returns the page in the language of man(7).
func (p page) roff(beside []string, at time.Time) string {
	var b strings.Builder
	name := strings.Join(p.path, "-")
	first, _, _ := strings.Cut(strings.Join(p.text, "\n"), "\n\n")
	what, _, _ := strings.Cut(strings.ReplaceAll(first, "\n", " "), ". ")
	fmt.Fprintf(&b, ".TH %s 1 %s Coffer \"Coffer manual\"\n.ad l\n.nh\n", strings.ToUpper(escape(name)), at.Format(time.DateOnly))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", escape(name), escape(strings.TrimSuffix(strings.TrimSpace(what), ".")))
	for _, s := range p.sections {
		if s.title == "Usage" {
			b.WriteString(".SH SYNOPSIS\n")
			verbatim(&b, s.lines)
		}
	}
	b.WriteString(".SH DESCRIPTION\n")
	for _, line := range p.text {
		if line == "" {
			b.WriteString(".PP\n")
			continue
		}
		b.WriteString(escape(line) + "\n")
	}
	for _, s := range p.sections {
		if s.title == "Usage" {
			continue
		}
		fmt.Fprintf(&b, ".SH %s\n", strings.ToUpper(escape(s.title)))
		verbatim(&b, s.lines)
	}
	if len(beside) > 0 {
		b.WriteString(".SH SEE ALSO\n")
		for i, other := range beside {
			if i > 0 {
				b.WriteString(",\n")
			}
			fmt.Fprintf(&b, ".BR %s (1)", escape(other))
		}
		b.WriteString("\n")
	}
	return b.String()
}

// verbatim writes lines as they are.
func verbatim(b *strings.Builder, lines []string) {
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	b.WriteString(".nf\n")
	for _, line := range lines {
		b.WriteString(escape(strings.TrimPrefix(line, "  ")) + "\n")
	}
	b.WriteString(".fi\n")
}

// escape keeps troff from reading anything into a line.
func escape(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "~", `\(ti`, "^", `\(ha`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		return `\&` + s
	}
	return s
}
