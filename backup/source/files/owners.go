package files

import (
	"os/user"
	"strconv"
	"sync"
)

// owners is the ids that a session has met. Their names are looked up when they
// are asked for, once each.
type owners struct {
	mu     sync.Mutex
	users  map[uint32]string // "" until it is looked up, noName if it has none
	groups map[uint32]string
}

// noName cannot be the name of a user or group.
const noName = ":"

func (o *owners) add(uid, gid uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.users == nil {
		o.users, o.groups = make(map[uint32]string), make(map[uint32]string)
	}
	if _, ok := o.users[uid]; !ok {
		o.users[uid] = ""
	}
	if _, ok := o.groups[gid]; !ok {
		o.groups[gid] = ""
	}
}

func (o *owners) names() (users, groups map[uint32]string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	users = look(o.users, func(id string) (string, error) {
		u, err := user.LookupId(id)
		if err != nil {
			return "", err
		}
		return u.Username, nil
	})
	groups = look(o.groups, func(id string) (string, error) {
		g, err := user.LookupGroupId(id)
		if err != nil {
			return "", err
		}
		return g.Name, nil
	})
	return users, groups
}

// look fills in what is missing in known and returns a copy of what has a name.
func look(known map[uint32]string, name func(id string) (string, error)) map[uint32]string {
	names := make(map[uint32]string, len(known))
	for id, n := range known {
		if n == "" {
			var err error
			if n, err = name(strconv.FormatUint(uint64(id), 10)); err != nil || n == "" {
				n = noName
			}
			known[id] = n
		}
		if n != noName {
			names[id] = n
		}
	}
	return names
}
