package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Error is everything that is wrong with a file.
type Error struct {
	Name     string // the file's
	Problems []Problem
}

// Problem is one fault.
type Problem struct {
	Line    int    // from 1; 0 if it is nowhere in particular
	Column  int    // from 1, in characters
	Field   string // "items.etc.vault", or ""
	Message string // what is wrong
	Next    string // what to do
}

// Error lists the problems, one a line: file:line:column: field: message; next.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = e.Name + ":" + p.String()
	}
	return strings.Join(lines, "\n")
}

func (p Problem) String() string {
	var b strings.Builder
	if p.Line > 0 {
		fmt.Fprintf(&b, "%d:%d: ", p.Line, p.Column)
	} else {
		b.WriteString(" ")
	}
	if p.Field != "" {
		b.WriteString(p.Field + ": ")
	}
	b.WriteString(p.Message)
	if p.Next != "" {
		b.WriteString("; " + p.Next)
	}
	return b.String()
}

// pos is a place in the file.
type pos struct{ line, column int }

// problems are collected while a file is read.
type problems struct {
	list []Problem
	at   map[string]pos  // where each field that the file has begins, by path
	bad  map[string]bool // fields that have a problem, by path
}

// add notes a problem of a field, at the field, or at the nearest thing around it
// that the file has. A field that has a problem gets no second one, which would
// only follow from the first.
func (p *problems) add(field, next, format string, args ...any) {
	if p.bad[field] {
		return
	}
	where := p.at[field]
	for around := field; where.line == 0 && around != ""; {
		around = parent(around)
		where = p.at[around]
	}
	p.addAt(where, field, next, format, args...)
}

// badIn tells whether something in a field has a problem.
func (p *problems) badIn(field string) bool {
	for bad := range p.bad {
		if strings.HasPrefix(bad, field+".") {
			return true
		}
	}
	return false
}

func (p *problems) addAt(where pos, field, next, format string, args ...any) {
	p.bad[field] = true
	p.list = append(p.list, Problem{
		Line: where.line, Column: where.column, Field: field,
		Message: fmt.Sprintf(format, args...), Next: next,
	})
}

// err returns what was collected, in the order of the file.
func (p *problems) err(name string) error {
	if len(p.list) == 0 {
		return nil
	}
	slices.SortStableFunc(p.list, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return &Error{Name: name, Problems: p.list}
}

// given tells whether the file has the field.
func (p *problems) given(field string) bool {
	_, ok := p.at[field]
	return ok
}

// parent returns the path of what contains a field.
func parent(field string) string {
	if i := strings.LastIndexAny(field, ".["); i >= 0 {
		return field[:i]
	}
	return ""
}

// closest returns the name that word is most likely a slip for, or "".
func closest(word string, names []string) string {
	best, bestDistance := "", min(3, (len(word)+2)/3+1)
	for _, n := range names {
		if d := distance(word, n); d < bestDistance {
			best, bestDistance = n, d
		}
	}
	return best
}

// distance counts the insertions, deletions and replacements between a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
