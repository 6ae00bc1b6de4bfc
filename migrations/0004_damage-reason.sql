ALTER TABLE "versions" ADD COLUMN "damage_reason" text DEFAULT '' NOT NULL;--> statement-breakpoint
UPDATE "versions" SET "damage_reason" = CASE
  WHEN "damage" LIKE 'the object is missing%' THEN 'object-missing'
  WHEN "damage" LIKE 'the object has % bytes;%' THEN 'size-differs'
  WHEN "damage" LIKE 'segment % has other bytes%' THEN 'bytes-differ'
  WHEN "damage" LIKE 'its record%' THEN 'record-inconsistent'
  ELSE ''
END WHERE "damage" <> '';
