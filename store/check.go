package store

import (
	"context"
	"fmt"
)

// What every implementation looks at before it does anything.

// CheckCall tells whether an operation on an object may begin: nobody has ended it,
// and the key is well formed.
func CheckCall(ctx context.Context, key Key) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return key.Check()
}

// CheckList is CheckCall for a List of what begins with prefix.
func CheckList(ctx context.Context, prefix Key) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return prefix.CheckPrefix()
}

// CheckGet is CheckCall for a Get from an offset.
func CheckGet(ctx context.Context, key Key, off int64) error {
	if err := CheckCall(ctx, key); err != nil {
		return err
	}
	if off < 0 {
		return fmt.Errorf("get %s: offset %d is negative", key, off)
	}
	return nil
}

// CheckPut is CheckCall for a Put of a body.
func CheckPut(ctx context.Context, key Key, body Body) error {
	if err := CheckCall(ctx, key); err != nil {
		return err
	}
	if err := body.Check(); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	return nil
}
