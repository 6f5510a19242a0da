package files

import (
	"os/user"
	"strconv"
	"sync"
)

// ids maps the user or group ids of a point to those of this machine.
type ids struct {
	names map[uint32]string // of the point; nil keeps all numbers
	find  func(name string) (string, error)

	mu   sync.Mutex
	here map[uint32]uint32
	back map[uint32]uint32 // the inverse, of all of names; nil until it is needed
}

func newUsers(names map[uint32]string) *ids {
	return &ids{names: names, here: make(map[uint32]uint32), find: func(name string) (string, error) {
		u, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	}}
}

func newGroups(names map[uint32]string) *ids {
	return &ids{names: names, here: make(map[uint32]uint32), find: func(name string) (string, error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	}}
}

// toHere returns the id that the point's id gets here.
func (m *ids) toHere(id uint32) uint32 {
	if m.names == nil {
		return id
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.look(id)
}

func (m *ids) look(id uint32) uint32 {
	if here, ok := m.here[id]; ok {
		return here
	}
	here := id
	if name, ok := m.names[id]; ok {
		if text, err := m.find(name); err == nil {
			if n, err := strconv.ParseUint(text, 10, 32); err == nil {
				here = uint32(n)
			}
		}
	}
	m.here[id] = here
	return here
}

// nobody is an id that no point has: chown takes it for "leave it".
const nobody = ^uint32(0)

// toPoint returns the id of the point that would get the id here, nobody if none
// would.
func (m *ids) toPoint(here uint32) uint32 {
	if m.names == nil {
		return here
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.back == nil {
		m.back = make(map[uint32]uint32)
		for id := range m.names {
			m.back[m.look(id)] = id
		}
	}
	if id, ok := m.back[here]; ok {
		return id
	}
	if m.look(here) != here {
		return nobody
	}
	return here
}
