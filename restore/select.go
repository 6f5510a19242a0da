package restore

import (
	"fmt"
	"path"
	"strings"
)

// Selection chooses entries of a point by path. Without paths and patterns it
// chooses everything. A chosen directory brings everything below it.
type Selection struct {
	Paths    []string // exact, absolute in the point
	Patterns []string // globs (path.Match) of whole absolute paths; "**" matches any number of components
}

// Check tells whether the patterns are well formed.
func (s Selection) Check() error {
	for _, p := range s.Patterns {
		for part := range strings.SplitSeq(p, "/") {
			if _, err := path.Match(part, ""); err != nil {
				return fmt.Errorf("pattern %q: %w", p, err)
			}
		}
	}
	return nil
}

// verdict on a path.
type verdict uint8

const (
	no    verdict = iota // neither it nor anything below it is chosen
	below                // something below it may be chosen
	yes                  // it and everything below it is chosen
)

// match judges the path of an entry: components joined by "/", with a leading "/".
func (s Selection) match(p string) verdict {
	if len(s.Paths) == 0 && len(s.Patterns) == 0 {
		return yes
	}
	best := no
	for _, want := range s.Paths {
		want = strings.TrimRight(clean(want), "/")
		switch {
		case p == want || strings.HasPrefix(p, want+"/"):
			return yes
		case strings.HasPrefix(want, p+"/"):
			best = below
		}
	}
	have := strings.Split(p, "/")[1:]
	for _, want := range s.Patterns {
		switch glob(strings.Split(clean(want), "/")[1:], have) {
		case yes:
			return yes
		case below:
			best = below
		}
	}
	return best
}

// clean makes a path absolute and removes what says nothing in it. Bytes that are
// no UTF-8 stay.
func clean(p string) string { return path.Clean("/" + p) }

// glob matches components against a pattern's.
func glob(pattern, have []string) verdict {
	for i, part := range pattern {
		if part == "**" {
			best := below
			for skip := 0; skip <= len(have)-i; skip++ {
				if glob(pattern[i+1:], have[i+skip:]) == yes {
					return yes
				}
			}
			return best
		}
		if i == len(have) {
			return below
		}
		if ok, err := path.Match(part, have[i]); err != nil || !ok {
			return no
		}
	}
	return yes
}
