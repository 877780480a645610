with
    raw_customers as (select * from {{ source("raw", "raw_customers") }}),

    final as (select id as customer_id, name as customer_name from raw_customers)

select *
from final
