package files

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// pick is a configured path, or a directory on the way to one.
type pick struct {
	root bool // a configured path
	next map[string]*pick
}

// child is nil if nothing is configured at or below name.
func (p *pick) child(name string) *pick {
	if p == nil {
		return nil
	}
	return p.next[name]
}

func (p *pick) isRoot() bool { return p != nil && p.root }

// names returns the names on the way, sorted.
func (p *pick) names() []string {
	if p == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(p.next))
}

func (p *pick) add(parts []string) {
	for _, name := range parts {
		if p.next[name] == nil {
			if p.next == nil {
				p.next = make(map[string]*pick)
			}
			p.next[name] = &pick{}
		}
		p = p.next[name]
	}
	p.root = true
}

// linkAbove returns the first symlink on the way to parts that lies in or is
// another configured path, "" if there is none. It would have to be kept as a
// symlink and as a directory at once.
func (p *pick) linkAbove(parts []string) string {
	inside := p.root
	for i, name := range parts[:max(0, len(parts)-1)] {
		p = p.child(name)
		if inside = inside || p.isRoot(); !inside {
			continue
		}
		path := join(parts[:i+1])
		if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSymlink != 0 {
			return path
		}
	}
	return ""
}

// components cuts a clean absolute path into names. A volume is a name.
func components(path string) []string {
	volume := filepath.VolumeName(path)
	rest := strings.Trim(filepath.ToSlash(path[len(volume):]), "/")
	var parts []string
	if volume != "" {
		parts = append(parts, volume)
	}
	if rest != "" {
		parts = append(parts, strings.Split(rest, "/")...)
	}
	return parts
}

// join is the inverse of components.
func join(parts []string) string {
	if len(parts) > 0 && filepath.VolumeName(parts[0]) != "" {
		return parts[0] + string(filepath.Separator) + filepath.Join(parts[1:]...)
	}
	return string(filepath.Separator) + filepath.Join(parts...)
}

// place is where a directory stands to what is configured.
type place struct {
	at    *pick  // nil: no configured path at it or below
	whole bool   // all in it is kept that is not excluded; otherwise what at names
	below string // its path below the configured path that governs, for patterns
}

// child is the place of the directory name. keeps tells whether the patterns
// keep it; it is asked only where that is not known from its having been listed.
func (p place) child(name string, keeps func() bool) place {
	at := p.at.child(name)
	switch {
	case at.isRoot():
		return place{at: at, whole: true}
	case !p.whole, at != nil && !keeps():
		return place{at: at}
	}
	below := name
	if p.below != "" {
		below = p.below + "/" + name
	}
	return place{at: at, whole: true, below: below}
}

// follows tells whether name may be a symlink that leads to a configured path.
func (p place) follows(name string) bool {
	if p.whole {
		return false
	}
	at := p.at.child(name)
	return at != nil && !at.root
}
