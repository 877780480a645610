with
    raw_stores as (select * from {{ source("raw", "raw_stores") }}),

    final as (
        select id as location_id, name as location_name, tax_rate, opened_at
        from raw_stores
    )

select *
from final
