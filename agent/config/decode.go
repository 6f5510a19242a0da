package config

import (
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// decoder fills a struct from YAML nodes, and notes what does not fit.
type decoder struct {
	*problems
	anchors map[string]ast.Node
}

// place returns where a node begins.
func place(n ast.Node) pos {
	switch v := n.(type) {
	case *ast.MappingNode:
		if !v.IsFlowStyle && len(v.Values) > 0 {
			return place(v.Values[0])
		}
	case *ast.MappingValueNode:
		return place(v.Key)
	case *ast.LiteralNode:
		return tokenPlace(v.Start)
	}
	return tokenPlace(n.GetToken())
}

func tokenPlace(t *token.Token) pos {
	if t == nil || t.Position == nil {
		return pos{}
	}
	return pos{t.Position.Line, t.Position.Column}
}

// document fills the struct that into points to from the document.
func (d *decoder) document(n ast.Node, into any) {
	d.value(n, reflect.ValueOf(into).Elem(), "")
}

// value fills v from n. field is its path.
func (d *decoder) value(n ast.Node, v reflect.Value, field string) {
	n, ok := d.resolve(n, field)
	if !ok {
		return
	}
	if _, null := n.(*ast.NullNode); null && v.Kind() != reflect.Pointer {
		d.null(v, field)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(n, v.Elem(), field)
	case reflect.Struct, reflect.Map:
		d.mapping(n, v, field)
	case reflect.Slice:
		d.list(n, v, field)
	default:
		d.scalar(n, v, field)
	}
}

// null is a field without a value: nothing is in it, or it says nothing.
func (d *decoder) null(v reflect.Value, field string) {
	switch v.Kind() {
	case reflect.Struct, reflect.Map, reflect.Slice:
	default:
		d.add(field, "give it one, or leave the field out", "it has no value")
	}
}

// resolve follows anchors and aliases.
func (d *decoder) resolve(n ast.Node, field string) (ast.Node, bool) {
	for range maxDepth {
		switch v := n.(type) {
		case nil:
			d.add(field, "", "it has no value")
			return nil, false
		case *ast.AnchorNode:
			d.anchors[v.Name.String()] = v.Value
			n = v.Value
		case *ast.AliasNode:
			target, ok := d.anchors[v.Value.String()]
			if !ok {
				d.addAt(place(v), field, "", "there is no anchor &%s before this", v.Value)
				return nil, false
			}
			n = target
		case *ast.TagNode:
			d.addAt(place(v), field, "leave it out", "the tag %s has no meaning here", v.Start.Value)
			return nil, false
		default:
			return n, true
		}
	}
	d.add(field, "", "the anchors go in circles")
	return nil, false
}

// pairs returns the entries of a mapping.
func pairs(n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch v := n.(type) {
	case *ast.MappingNode:
		return v.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{v}, true
	}
	return nil, false
}

func (d *decoder) mapping(n ast.Node, v reflect.Value, field string) {
	entries, ok := pairs(n)
	if !ok {
		d.addAt(place(n), field, "write name: value", "it must be a mapping")
		return
	}
	if v.Kind() == reflect.Map && v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	for _, e := range entries {
		name, ok := d.key(e, field)
		if !ok {
			continue
		}
		child := name
		if field != "" {
			child = field + "." + name
		}
		if v.Kind() == reflect.Map {
			d.at[child] = place(e.Key)
			elem := reflect.New(v.Type().Elem()).Elem()
			d.value(e.Value, elem, child)
			v.SetMapIndex(reflect.ValueOf(name), elem)
			continue
		}
		into, names := fieldOf(v, name)
		if !into.IsValid() {
			d.unknown(place(e.Key), field, name, names)
			continue
		}
		d.at[child] = place(e.Key)
		d.value(e.Value, into, child)
	}
}

// key returns the name of an entry.
func (d *decoder) key(e *ast.MappingValueNode, field string) (string, bool) {
	switch k := e.Key.(type) {
	case *ast.StringNode:
		return k.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode:
		return k.GetToken().Value, true
	case *ast.MergeKeyNode:
		d.addAt(place(k), field, "write the fields out", "merging with << is not supported")
	default:
		d.addAt(place(k), field, "", "this cannot be the name of a field")
	}
	return "", false
}

// fieldOf returns the field of the struct v that is called name, or else no value;
// and the names of all.
func fieldOf(v reflect.Value, name string) (reflect.Value, []string) {
	var names []string
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag.Get("yaml")
		switch tag {
		case "-":
		case name:
			return v.Field(i), nil
		default:
			names = append(names, tag)
		}
	}
	return reflect.Value{}, names
}

func (d *decoder) unknown(where pos, field, name string, names []string) {
	next := "the fields here are " + strings.Join(names, ", ")
	if near := closest(name, names); near != "" {
		next = "did you mean " + near + "?"
	}
	if field == "" {
		d.addAt(where, "", next, "unknown field %q", name)
		return
	}
	d.addAt(where, field, next, "unknown field %q", name)
}

func (d *decoder) list(n ast.Node, v reflect.Value, field string) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		d.addAt(place(n), field, "write [a, b], or one a line behind a dash", "it must be a list")
		return
	}
	out := reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values))
	for i, e := range seq.Values {
		child := field + "[" + strconv.Itoa(i) + "]"
		if e != nil {
			d.at[child] = place(e)
		}
		d.value(e, out.Index(i), child)
	}
	v.Set(out)
}

func (d *decoder) scalar(n ast.Node, v reflect.Value, field string) {
	var text string
	switch s := n.(type) {
	case *ast.StringNode:
		text = s.Value
	case *ast.LiteralNode:
		text = s.Value.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		text = s.GetToken().Value
	default:
		d.addAt(place(n), field, "", "it must be a single value")
		return
	}
	d.at[field] = place(n)
	switch v.Type() {
	case reflect.TypeFor[Size]():
		size, err := parseSize(text)
		if err != nil {
			d.add(field, `write it like "10 GiB"`, "%v", err)
		}
		v.SetInt(int64(size))
		return
	case reflect.TypeFor[Duration]():
		length, err := parseDuration(text)
		if err != nil {
			d.add(field, `write it like "90s", "12h" or "3d"`, "%v", err)
		}
		v.SetInt(int64(length))
		return
	}
	switch v.Kind() {
	case reflect.String:
		if strings.ContainsRune(text, 0) {
			d.add(field, "", "it has a zero byte in it")
		}
		v.SetString(text)
	case reflect.Bool:
		if text != "true" && text != "false" {
			d.add(field, "write true or false", "%q is not a yes or no", text)
		}
		v.SetBool(text == "true")
	case reflect.Int:
		i, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			d.add(field, "", "%q is not a whole number", text)
		}
		v.SetInt(i)
	}
}

// parseSize reads a Size. A unit of one letter is a binary one.
func parseSize(text string) (Size, error) {
	digits := strings.TrimRight(text, "BKMGTPikb ")
	unit := strings.TrimSpace(text[len(digits):])
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || strings.Trim(digits, "0123456789.") != "" {
		return 0, sizeError(text)
	}
	scale, known := map[string]float64{
		"": 1, "B": 1,
		"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50,
		"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "PiB": 1 << 50,
		"kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "PB": 1e15,
	}[unit]
	if !known || n*scale > math.MaxInt64/2 {
		return 0, sizeError(text)
	}
	return Size(n * scale), nil
}

type sizeError string

func (e sizeError) Error() string { return strconv.Quote(string(e)) + " is not a size" }

// parseDuration reads a Duration: one number with one unit, or 0.
func parseDuration(text string) (Duration, error) {
	digits := strings.TrimRight(text, "smhd ")
	unit := strings.TrimSpace(text[len(digits):])
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || strings.Trim(digits, "0123456789.") != "" {
		return 0, durationError(text)
	}
	scale, known := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}[unit]
	if length := n * float64(scale); (known || n == 0 && unit == "") && length <= math.MaxInt64/2 {
		return Duration(length), nil
	}
	return 0, durationError(text)
}

type durationError string

func (e durationError) Error() string { return strconv.Quote(string(e)) + " is not a length of time" }
