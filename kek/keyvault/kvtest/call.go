package kvtest

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxPage is the most entries that a client may ask for.
const maxPage = 25

// call is one request to a vault that is allowed.
type call struct {
	s *Server
	place
	route
	api   string
	query url.Values
	path  string
	body  request
}

// do performs the operation. No result means an answer without a body.
func (c *call) do() (any, error) {
	switch c.op {
	case OpCreate:
		return c.create()
	case OpImport:
		return c.importKey()
	case OpRotate:
		return c.rotate()
	case OpUpdate:
		return c.update()
	case OpWrap, OpUnwrap, OpEncrypt, OpDecrypt:
		return c.cipher()
	case OpDelete, OpRecover, OpPurge, OpSetPolicy, OpRestore:
		defer c.s.changed() // after the lock is free
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.settle()
	switch c.op {
	case OpGet:
		k, v, err := c.find()
		if err != nil {
			return nil, err
		}
		return c.bundle(k, v), nil
	case OpList, OpListGone, OpVersions:
		return c.list()
	case OpGetDeleted, OpRecover, OpPurge:
		return c.doDeleted()
	case OpGetPolicy, OpSetPolicy:
		return c.policy()
	case OpBackup:
		return c.backup()
	case OpRestore:
		return c.restore()
	case OpRandom:
		return c.random()
	}
	return c.delete()
}

// find finds the key and the version that the path names. Server.mu is held.
func (c *call) find() (*key, *version, error) {
	k := c.vault.keys[strings.ToLower(c.key)]
	if k == nil {
		return nil, nil, keyNotFound("key", c.key)
	}
	v := k.version(c.version)
	if v == nil {
		return nil, nil, keyNotFound("key", c.key+"/"+c.version)
	}
	return k, v, nil
}

func (c *call) bundle(k *key, v *version) bundle {
	return bundle{Key: v.web(c.base, k.name), Attributes: c.vault.attributes(v, c.api), Tags: k.tags, deletion: k.deletion(c.base)}
}

// list answers with one page of keys, deleted keys or versions.
func (c *call) list() (any, error) {
	items := []item{}
	add := func(id string, k *key, v *version) {
		items = append(items, item{ID: id, Attributes: c.vault.attributes(v, c.api), Tags: k.tags, deletion: k.deletion(c.base)})
	}
	switch c.op {
	case OpVersions:
		k, _, err := c.find()
		if err != nil {
			return nil, err
		}
		for _, v := range k.listed() {
			add(c.base+"/keys/"+k.name+"/"+v.id, k, v)
		}
	case OpList:
		for _, name := range slices.Sorted(maps.Keys(c.vault.keys)) {
			k := c.vault.keys[name]
			add(c.base+"/keys/"+k.name, k, k.latest())
		}
	default:
		for _, name := range slices.Sorted(maps.Keys(c.vault.deleted)) {
			k := c.vault.deleted[name]
			add(c.base+"/keys/"+k.name, k, k.latest())
		}
	}
	return c.page(items)
}

// page cuts the page out of items that the query asks for.
func (c *call) page(items []item) (any, error) {
	size, asked := c.s.opts.PageSize, c.query.Get("maxresults")
	if asked != "" {
		n, err := strconv.Atoi(asked)
		if err != nil || n < 1 || n > maxPage {
			return nil, badParameter("Property maxresults has invalid value %q: it must be 1 to %d", asked, maxPage)
		}
		size = min(size, n)
	}
	from := 0
	if token := c.query.Get("$skiptoken"); token != "" {
		raw, err := base64.RawURLEncoding.DecodeString(token)
		if err == nil {
			from, err = strconv.Atoi(string(raw))
		}
		if err != nil || from < 0 {
			return nil, badParameter("Property $skiptoken has invalid value %q", token)
		}
	} else if c.s.opts.EmptyPages {
		return page{Value: []item{}, Next: c.next(0, asked)}, nil
	}
	from = min(from, len(items))
	to := min(from+size, len(items))
	out := page{Value: items[from:to]}
	if to < len(items) {
		out.Next = c.next(to, asked)
	}
	return out, nil
}

// next is the address of the page that begins with an entry.
func (c *call) next(from int, asked string) *string {
	token := base64.RawURLEncoding.EncodeToString([]byte(strconv.Itoa(from)))
	link := c.base + c.path + "?api-version=" + c.api + "&$skiptoken=" + token
	if asked != "" {
		link += "&maxresults=" + asked
	}
	return &link
}

func (c *call) delete() (any, error) {
	k, v, err := c.find()
	if err != nil {
		return nil, err
	}
	gone := *k
	if c.vault.recovery.softDelete() {
		gone.deleted = c.s.opts.Clock()
		gone.purge = gone.deleted.AddDate(0, 0, c.vault.days)
	}
	c.s.remove(c.vault, k)
	return c.bundle(&gone, v), nil
}

// doDeleted answers what is asked of a deleted key.
func (c *call) doDeleted() (any, error) {
	if !c.vault.recovery.softDelete() {
		return nil, &failure{status: 400, code: "NotSupported", message: "Operation \"" + string(c.op) + "\" is not supported because soft delete is not enabled for this vault."}
	}
	k := c.vault.deleted[strings.ToLower(c.key)]
	if k == nil {
		return nil, keyNotFound("deleted key", c.key)
	}
	switch c.op {
	case OpGetDeleted:
		return c.bundle(k, k.latest()), nil
	case OpRecover:
		back := *k
		back.deleted, back.purge = time.Time{}, time.Time{}
		c.s.bringBack(c.vault, k)
		return c.bundle(&back, back.latest()), nil
	}
	if c.vault.recovery.purgeProtection() {
		return nil, forbidden("", "Operation \"purge\" is not allowed because purge protection is enabled for this vault. Key Vault service will automatically purge it after the retention period has passed.")
	}
	delete(c.vault.deleted, strings.ToLower(c.key))
	return nil, nil // no body
}

// policy answers with the rotation policy of a key, or sets it.
func (c *call) policy() (any, error) {
	k, _, err := c.find()
	if err != nil {
		return nil, err
	}
	if c.op == OpSetPolicy {
		if c.body.raw == nil {
			return nil, badParameter("The request body is empty")
		}
		k.policy = c.body.raw
	}
	out := map[string]any{
		"lifetimeActions": []any{map[string]any{
			"trigger": map[string]string{"timeBeforeExpiry": "P30D"}, "action": map[string]string{"type": "Notify"},
		}},
		"attributes": map[string]any{},
	}
	if k.policy != nil {
		if err := json.Unmarshal(k.policy, &out); err != nil {
			return nil, badParameter("The request body is not valid: %v", err)
		}
	}
	out["id"] = c.base + "/keys/" + k.name + "/rotationpolicy"
	return out, nil
}

// backup answers with all versions of a key, sealed by this server.
func (c *call) backup() (any, error) {
	k, _, err := c.find()
	if err != nil {
		return nil, err
	}
	saved, err := k.save()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(saved)
	if err != nil {
		return nil, err
	}
	sealed, err := c.s.seal(text)
	if err != nil {
		return nil, err
	}
	return map[string]octets{"value": sealed}, nil
}

// restore brings back what backup made, into any vault of this server.
func (c *call) restore() (any, error) {
	text, err := c.s.unseal(c.body.Value)
	if err != nil {
		return nil, badParameter("Backup blob contains invalid or corrupt data.")
	}
	var saved savedKey
	if err := json.Unmarshal(text, &saved); err != nil {
		return nil, badParameter("Backup blob contains invalid or corrupt data.")
	}
	k, err := saved.load()
	if err != nil {
		return nil, badParameter("Backup blob contains invalid or corrupt data.")
	}
	name := strings.ToLower(k.name)
	if gone := c.vault.deleted[name]; gone != nil {
		return nil, c.vault.inTheWay(gone)
	}
	if c.vault.keys[name] != nil {
		return nil, conflict("", "Key %s already exists.", k.name)
	}
	c.vault.keys[name] = k
	return c.bundle(k, k.latest()), nil
}

func (c *call) random() (any, error) {
	if c.body.Count < 1 || c.body.Count > 128 {
		return nil, badParameter("Property count has invalid value %d: it must be 1 to 128", c.body.Count)
	}
	out := make(octets, c.body.Count)
	_, _ = rand.Read(out) // never fails
	return map[string]octets{"value": out}, nil
}
